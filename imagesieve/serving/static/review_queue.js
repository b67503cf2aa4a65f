// What waits to be reviewed: the server's list, less what this tab has dealt with.

import { askJson } from "./api.js";

const AT_ONCE = 20; // pictures to ask the server for
const MOST = 100; // more than that it does not give
const FEW = 5; // when so few are left, more are fetched in the background
const SURE = "recent"; // the server's word for pictures that nobody needs to look at

export class ReviewQueue {
  pictures = []; // the current one first
  classes = [];
  waiting = 0;
  corrected = 0;
  audit = null;
  withSure = false; // whether to show the pictures, too, that the model was sure of
  hasSure = false; // whether there are such that are not shown
  #isMore = false; // whether the server has more than it gave
  #done = new Set(); // sha256 of what was corrected or skipped here
  #skipped = new Set();

  get current() {
    return this.pictures[0];
  }

  get numSkipped() {
    return this.#skipped.size;
  }

  get isLow() {
    return this.#isMore && this.pictures.length < FEW;
  }

  // Ask the server what waits.
  async fill() {
    const limit = Math.min(MOST, AT_ONCE + this.#done.size);
    const told = await askJson(`/v1/review?limit=${limit}`);
    const here = new Set([...this.#done, ...this.pictures.map(({ sha256 }) => sha256)]);
    const fresh = told.images.filter(({ sha256, corrected }) => !corrected && !here.has(sha256));
    const wanted = fresh.filter(({ reason }) => this.withSure || reason !== SURE);
    this.pictures.push(...wanted);
    this.hasSure = wanted.length < fresh.length;
    this.#isMore = told.images.length === limit;
    this.classes = told.classes;
    this.waiting = told.waiting;
    this.corrected = told.corrected;
    this.audit = told.audit;
  }

  // The current picture has been corrected.
  settle() {
    const picture = this.pictures.shift();
    this.#done.add(picture.sha256);
    this.#count(picture, 1);
  }

  // The current picture is for another time.
  skip() {
    const { sha256 } = this.pictures.shift();
    this.#done.add(sha256);
    this.#skipped.add(sha256);
  }

  // A picture comes back to be classified anew.
  bringBack(picture) {
    this.#done.delete(picture.sha256);
    if (!this.#skipped.delete(picture.sha256)) this.#count(picture, -1);
    this.pictures.unshift(picture);
  }

  // Skipped pictures may come again.
  forgetSkipped() {
    for (const sha256 of this.#skipped) this.#done.delete(sha256);
    this.#skipped.clear();
  }

  // Until the server is asked again: so many more are corrected, and fewer wait.
  #count({ reason }, number) {
    this.corrected = Math.max(0, this.corrected + number);
    if (reason !== SURE) this.waiting = Math.max(0, this.waiting - number);
  }
}
