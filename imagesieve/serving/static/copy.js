// A button that copies the text beside it.

import { announce, make } from "./dom.js";

export function copyButton(text) {
  const button = make("button", "copy small quiet", "Copy");
  button.type = "button";
  button.addEventListener("click", async () => {
    const isCopied = await copy(text());
    button.textContent = isCopied ? "Copied" : "Press Ctrl+C";
    announce(button.textContent);
    setTimeout(() => (button.textContent = "Copy"), 2000);
  });
  return button;
}

// Browsers give the clipboard only to pages from https or from the same machine.
async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    return copySelected(text);
  }
}

function copySelected(text) {
  const field = make("textarea", "unseen");
  field.value = text;
  document.body.append(field);
  field.select();
  const isCopied = document.execCommand("copy");
  field.remove();
  return isCopied;
}
