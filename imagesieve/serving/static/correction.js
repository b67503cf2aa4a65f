// The part of a card where a person says which class is right.

import { choiceButton, choiceOf, choicesFor } from "./choices.js";
import { find, make, tell } from "./dom.js";
import { sentence } from "./format.js";

export class Correction {
  #panel;
  #opener;
  #choices = [];
  #choose;

  // `choose(choice)` tells the server; what it throws is shown here.
  constructor(card, choose) {
    this.#panel = find(".correction", card);
    this.#opener = find(".wrong", card);
    this.#choose = choose;
    this.#opener.addEventListener("click", () => this.toggle());
  }

  get isOpen() {
    return !this.#panel.hidden;
  }

  // The model's own answer is among the choices: an unsure answer may be right.
  offer(classes, answered) {
    this.#choices = choicesFor(classes);
    const buttons = this.#choices.map((choice) => this.#button(choice, answered));
    find(".choices", this.#panel).replaceChildren(...buttons);
  }

  #button(choice, answered) {
    const button = choiceButton(choice, (chosen) => this.take(chosen));
    if (choice.name === answered && choice.wanted.label) {
      button.append(make("span", "choice-note", "answered"));
    }
    return button;
  }

  toggle() {
    if (this.isOpen) {
      this.close();
    } else {
      this.open();
    }
  }

  open() {
    this.#panel.hidden = false;
    this.#opener.setAttribute("aria-expanded", "true");
    find(".choices button", this.#panel).focus();
  }

  close() {
    tell(find(".problem", this.#panel), "");
    this.#panel.hidden = true;
    this.#opener.setAttribute("aria-expanded", "false");
  }

  // Take a pressed key; true when it stands for a choice.
  press(key) {
    const choice = choiceOf(key, this.#choices);
    if (choice) this.take(choice);
    return Boolean(choice);
  }

  async take(choice) {
    if (this.#panel.inert) return; // the one before is still on its way
    this.#panel.inert = true;
    try {
      await this.#choose(choice);
      this.close();
    } catch (error) {
      tell(find(".problem", this.#panel), sentence(error.message));
    } finally {
      this.#panel.inert = false;
    }
  }
}
