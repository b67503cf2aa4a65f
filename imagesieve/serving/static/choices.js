// The answers a person can give: one class, or none of them; each with a key where there are
// enough keys.

import { make } from "./dom.js";

// j, k, s, u and x have a meaning of their own.
const CLASS_KEYS = "123456789abcdefghilmnopqrtvwyz";
const NONE_KEY = "x";

// Give the choices for these classes: {key, name, wanted}, `wanted` being what the server is told.
export function choicesFor(classes) {
  const known = classes.map((name, index) => ({
    key: CLASS_KEYS[index] ?? "",
    name,
    wanted: { label: name },
  }));
  return [...known, { key: NONE_KEY, name: "none of these", wanted: { reject: true } }];
}

export const choiceOf = (key, choices) => choices.find((choice) => choice.key === key);

export function keyCap(key) {
  const cap = make("kbd", "", key);
  cap.setAttribute("aria-hidden", "true"); // the button's name says enough
  return cap;
}

export function choiceButton(choice, choose) {
  const button = make("button", "choice");
  button.type = "button";
  if (choice.key) {
    button.append(keyCap(choice.key));
    button.setAttribute("aria-keyshortcuts", choice.key);
  }
  button.append(make("span", "choice-name", choice.name));
  button.addEventListener("click", () => choose(choice));
  return button;
}
