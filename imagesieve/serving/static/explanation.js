// Why the model answered so: a heat map over the picture, made by the server on demand.

import { ask } from "./api.js";
import { announce, find } from "./dom.js";
import { showBlob } from "./thumbnail.js";

// Fill the figure with the explanation of this file; throw a Problem when there is none.
export async function explain(figure, file, options) {
  const answer = await ask("/v1/explain", {
    method: "POST",
    headers: { "Content-Type": "application/octet-stream" },
    body: file,
    ...options,
  });
  const label = labelOf(answer);
  const words = label
    ? `The brighter a place, the more it speaks for “${label}”.`
    : "The brighter a place, the more it speaks for the answer.";
  showBlob(find("img", figure), await answer.blob());
  find("img", figure).alt = `The picture with a heat map. ${words}`;
  find("figcaption", figure).textContent = words;
  announce(words);
}

function labelOf(answer) {
  const header = answer.headers.get("X-Label") ?? "";
  try {
    return decodeURIComponent(header); // a header is ASCII, a class name need not be
  } catch {
    return header;
  }
}
