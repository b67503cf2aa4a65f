// One picture: what the model says of it, why, and what a person knows better.

import { askJson, Problem } from "./api.js";
import { bars } from "./bars.js";
import { Correction } from "./correction.js";
import { announce, clone, find, make, tell } from "./dom.js";
import { explain } from "./explanation.js";
import { correct, undo } from "./feedback.js";
import { showBlob, thumbnailOf } from "./thumbnail.js";
import { milliseconds, percent, sentence } from "./format.js";

export const WAITING = "waiting";
export const CLASSIFIED = "classified";
export const FAILED = "failed";

export class Card {
  element = clone("#card");
  answer = null;
  #file; // kept for a correction, as long as the card is there
  #corrected = null; // what the server said of the last correction
  #correction;
  #life = new AbortController(); // ends whatever is under way when the card goes

  // `events` has three functions: again(card), corrected(card), removed(card).
  constructor(file, events) {
    this.#file = file;
    this.name = file.name || "pasted picture";
    this.#find(".name").textContent = this.name;
    this.#correction = new Correction(this.element, async (choice) => {
      await this.#correct(choice);
      events.corrected(this);
    });
    this.#on(".again", () => events.again(this));
    this.#on(".why", () => this.explain());
    this.#on(".undo", () => this.undo());
    this.#on(".remove", () => events.removed(this));
    this.#find(".remove").setAttribute("aria-label", `Remove ${this.name}`);
    this.wait();
  }

  get state() {
    return this.element.dataset.state;
  }

  get isGone() {
    return this.#life.signal.aborted;
  }

  get isCorrected() {
    return this.#corrected !== null;
  }

  get correction() {
    return this.#correction;
  }

  async showThumbnail() {
    if (this.isGone) return;
    const blob = await thumbnailOf(this.#file);
    if (!blob || this.isGone) return; // an empty frame rather than a broken-picture sign
    const image = this.#find(".thumbnail");
    image.hidden = false;
    showBlob(image, blob);
  }

  // It will be this picture's turn.
  wait() {
    this.#enter(WAITING);
    this.#say("Waiting …");
    tell(this.#find(".problem"), "");
  }

  // Ask the model; the card ends as classified or failed.
  async classify() {
    if (this.isGone) return;
    this.#say("Looking …");
    try {
      this.#show(await this.#predict());
    } catch (error) {
      if (!this.isGone) this.#fail(error);
    }
  }

  async explain() {
    const figure = this.#find(".explanation");
    const button = this.#find(".why");
    if (!figure.hidden) return this.#closeExplanation();
    if (button.disabled || !this.answer) return;
    button.disabled = true;
    button.textContent = "Looking …";
    tell(this.#find(".problem"), "");
    try {
      await explain(figure, this.#file, { signal: this.#life.signal });
      figure.hidden = false;
    } catch (error) {
      if (!this.isGone) tell(this.#find(".problem"), sentence(error.message));
    }
    button.disabled = false;
    this.#nameExplanationButton();
  }

  async undo() {
    const told = this.#corrected;
    if (!told) return;
    this.#corrected = null; // a second press would undo what was said before
    try {
      this.#showCorrection(await undo(told.sha256));
      announce(`The correction of ${this.name} is undone.`);
    } catch (error) {
      this.#corrected = told;
      tell(this.#find(".problem"), sentence(error.message));
    }
    this.element.focus();
  }

  openCorrection() {
    if (this.answer) this.#correction.open();
  }

  closeParts() {
    this.#correction.close();
    this.#closeExplanation();
    this.element.focus();
  }

  remove() {
    this.#life.abort(new Problem("The card was removed"));
    this.element.remove();
  }

  #find(selector) {
    return find(selector, this.element);
  }

  #on(selector, act) {
    this.#find(selector).addEventListener("click", act);
  }

  #say(words) {
    this.#find(".label").textContent = words;
    this.element.setAttribute("aria-label", `${this.name}: ${words}`);
  }

  // Show what can be done in this state.
  #enter(state) {
    this.element.dataset.state = state;
    this.#find(".actions").hidden = state === WAITING;
    this.#find(".again").hidden = state !== FAILED;
    this.#find(".wrong").hidden = this.#find(".why").hidden = state !== CLASSIFIED;
  }

  async #predict() {
    if (this.#file.size === 0) throw new Problem("The file is empty");
    return askJson("/v1/predict", {
      method: "POST",
      headers: { "Content-Type": "application/octet-stream" },
      body: this.#file,
      signal: this.#life.signal,
      onWait: (problem) => this.#say(`${problem.message} Trying again …`),
    });
  }

  #show(answer) {
    this.answer = answer;
    this.#say(answer.label);
    this.#find(".thumbnail").alt = `classified as ${answer.label}`;
    tell(this.#find(".decision"), decisionOf(answer));
    this.#showChips(flagsOf(answer));
    const list = this.#find(".bars");
    list.replaceChildren(...bars(answer.probabilities));
    list.hidden = false;
    tell(this.#find(".timing"), detailsOf(answer));
    this.#correction.offer(Object.keys(answer.probabilities), answer.label);
    this.#enter(CLASSIFIED);
  }

  #fail(error) {
    this.#say("Not classified");
    tell(this.#find(".problem"), sentence(error.message));
    this.#enter(FAILED);
  }

  #showChips(flags) {
    const list = this.#find(".chips");
    list.replaceChildren(...flags.map((flag) => make("li", "chip", flag)));
    list.hidden = !flags.length;
  }

  async #correct(choice) {
    const picture = { id: this.answer.id, held: this.answer.held, file: this.#file };
    this.#showCorrection(await correct(picture, choice.wanted));
    announce(`${this.name}: ${this.#find(".corrected span").textContent}. Press u to undo.`);
    this.element.focus();
  }

  // Show what the service holds now: a class, that it is none of them, or nothing.
  #showCorrection(told) {
    const holds = told.label !== null || told.rejected;
    this.#corrected = holds ? told : null;
    const words = told.label === this.answer.label ? "Confirmed as" : "Corrected to";
    const line = this.#find(".corrected");
    const text = told.rejected ? "Marked as none of these" : `${words} ${told.label}`;
    find("span", line).textContent = holds ? text : "";
    line.hidden = !holds;
    this.#find(".undo").hidden = !holds;
    this.#find(".wrong").textContent = holds ? "Change" : "Wrong?";
  }

  #closeExplanation() {
    this.#find(".explanation").hidden = true;
    this.#nameExplanationButton();
  }

  #nameExplanationButton() {
    const isOpen = !this.#find(".explanation").hidden;
    this.#find(".why").textContent = isOpen ? "Hide why" : "Why?";
    this.#find(".why").setAttribute("aria-expanded", String(isOpen));
  }
}

function decisionOf({ label, decision, decision_policy: policy }) {
  if (decision === label) return "";
  const least = policy?.min_confidence;
  const reason = least === undefined ? "no class is sure enough" : `no class reaches ${percent(least)}`;
  return `Answered as ${decision}: ${reason}.`;
}

function flagsOf({ flags = [], cached, image }) {
  const found = [...flags];
  if (image.frames > 1) found.push(`${image.frames} frames looked at`);
  if (image.truncated && !found.includes("truncated")) found.push("ends early");
  if (cached && !found.includes("cached")) found.push("seen before");
  return found;
}

const STEPS = { queue: "waited", decode: "decoded in", infer: "classified in", total: "in all" };

function detailsOf({ image, timing_ms: timing }) {
  const times = Object.entries(STEPS)
    .filter(([step]) => timing[step] > 0) // a picture seen before took no such step
    .map(([step, words]) => `${words} ${milliseconds(timing[step])}`);
  // A line is broken after a dot, never before.
  return [`${image.format} ${image.width}×${image.height}`, ...times].join("\u00a0· ");
}
