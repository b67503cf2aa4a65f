// The little Markdown of API descriptions: paragraphs, lists, and `code`; all else is plain text.

import { make } from "./dom.js";

// Give paragraphs and lists for a text.
export function prose(text = "") {
  const blocks = text.split(/\n\s*\n/).filter((block) => block.trim());
  return blocks.map((block) => (/^\s*[-*] /.test(block) ? list(block) : paragraph(block)));
}

function paragraph(block) {
  const element = make("p");
  element.append(...phrases(block));
  return element;
}

function list(block) {
  const items = block.split(/\n\s*[-*] |^\s*[-*] /).filter((item) => item.trim());
  const element = make("ul");
  for (const item of items) {
    const entry = make("li");
    entry.append(...phrases(item));
    element.append(entry);
  }
  return element;
}

// Give text and code elements for one line of text.
export function phrases(text = "") {
  const parts = text.split("`");
  return parts.map((part, index) => (index % 2 ? make("code", "", part) : part));
}
