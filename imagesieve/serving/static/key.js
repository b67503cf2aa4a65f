// The key of this tab: asked for when the server wants one, forgotten with the tab.

import { find, tell } from "./dom.js";

const STORED_AS = "imagesieve-key";
const SENDABLE = /^[\x21-\x7e]+$/; // a header carries nothing else

export class KeyDeclined extends Error {
  constructor() {
    super("The server asks for a key, and none was given.");
  }
}

let key = storage()?.getItem(STORED_AS) ?? null;
let question = null; // all who need a key wait for the one dialog
let declined = false;

export const currentKey = () => key;

// A person wants something new: ask again, even if they did not want to give a key before.
export function mayAskAgain() {
  declined = false;
}

// Wait until there is another key than the one that was refused; null means that none was sent.
export async function otherKey(refused) {
  if (key !== refused) return;
  if (declined) throw new KeyDeclined();
  const isFirst = refused === null;
  await askForKey(isFirst ? "Those who run it can give you one." : "It did not accept the last one.");
}

export function askForKey(words) {
  question ??= open(words).finally(() => {
    question = null;
  });
  return question;
}

function open(words) {
  const dialog = find("#key-dialog");
  find("#key-words").textContent = words;
  find("#key").value = "";
  tell(find("#key-problem"), "");
  find("#key-forget").hidden = key === null;
  find("#key-button").hidden = false;
  dialog.returnValue = "";
  dialog.showModal();
  return new Promise((done, fail) => {
    dialog.addEventListener("close", () => close(dialog.returnValue, done, fail), { once: true });
  });
}

function close(outcome, done, fail) {
  if (outcome === "given") return done();
  declined = true;
  fail(new KeyDeclined());
}

function give() {
  const typed = find("#key").value.trim();
  if (!SENDABLE.test(typed)) {
    tell(find("#key-problem"), "A key has letters, digits and signs, without spaces between.");
    return;
  }
  keep(typed);
  find("#key-dialog").close("given");
}

function keep(value) {
  key = value;
  declined = false;
  if (value === null) {
    storage()?.removeItem(STORED_AS);
  } else {
    storage()?.setItem(STORED_AS, value);
  }
}

// A browser that is told to store nothing throws here; the key then lives as long as the page.
function storage() {
  try {
    return window.sessionStorage;
  } catch {
    return null;
  }
}

function wire() {
  const dialog = find("#key-dialog");
  find("#key-form").addEventListener("submit", (event) => {
    event.preventDefault(); // the browser would load the page anew
    give();
  });
  find("#key-cancel").addEventListener("click", () => dialog.close(""));
  find("#key-forget").addEventListener("click", () => {
    keep(null);
    dialog.close("");
  });
  const button = find("#key-button");
  button.hidden = key === null;
  button.addEventListener("click", () => {
    askForKey(key === null ? "None is in use yet." : "One is in use; give another.").then(
      () => document.dispatchEvent(new Event("newkey")),
      () => {}, // closed without one: everything stays as it is
    );
  });
}

wire();
