// Single keys as commands, out of the way of typing and of the browser's own shortcuts.

import { find } from "./dom.js";

const TYPING = "input:not([type=file]), textarea, select, [contenteditable]";

// Call `handle(key, event)` for each key; true means that it was taken.
export function onKey(handle) {
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.isComposing) return;
    if (event.target.matches(TYPING) || find("dialog[open]")) return;
    const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
    if (handle(key, event)) event.preventDefault();
  });
}
