// The pictures to review, fetched ahead so that the next one is there at once. They are fetched as
// blobs rather than by <img src>, because only so the key goes along.

import { ask } from "./api.js";

export class Prefetcher {
  #frames = new Map(); // sha256 -> promise of an object URL

  // Give the address of the picture; throws a Problem when the server has it no more.
  address(sha256) {
    if (!this.#frames.has(sha256)) {
      const frame = fetchPicture(sha256);
      frame.catch(() => this.#frames.delete(sha256)); // so that it can be asked for again
      this.#frames.set(sha256, frame);
    }
    return this.#frames.get(sha256);
  }

  // Have these ready, and let go of all others.
  keep(wanted) {
    for (const [sha256, frame] of this.#frames) {
      if (wanted.includes(sha256)) continue;
      this.#frames.delete(sha256);
      frame.then(URL.revokeObjectURL, () => {}); // what never came needs no letting go
    }
    for (const sha256 of wanted) {
      this.address(sha256).catch(() => {}); // told when it is this picture's turn
    }
  }
}

async function fetchPicture(sha256) {
  const answer = await ask(`/v1/review/${sha256}/image`);
  return URL.createObjectURL(await answer.blob());
}
