// A lane that few tasks pass at once; the others wait in the order they came.

export class Queue {
  #places;
  #waiting = [];

  constructor(places) {
    this.#places = places;
  }

  // Run the task when there is a place; give what it gives.
  async run(task) {
    await this.#enter();
    try {
      return await task();
    } finally {
      this.#leave();
    }
  }

  #enter() {
    if (this.#places > 0) {
      this.#places -= 1;
      return Promise.resolve();
    }
    return new Promise((enter) => this.#waiting.push(enter));
  }

  // The place goes to the one who waits longest, or back.
  #leave() {
    const next = this.#waiting.shift();
    if (next) {
      next();
    } else {
      this.#places += 1;
    }
  }
}
