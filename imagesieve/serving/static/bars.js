// Probabilities as bars, the largest first.

import { clone, find, make } from "./dom.js";
import { counted, percent } from "./format.js";

const MAX_BARS = 6; // a model may know a thousand classes; the rest is summed up

export function bars(probabilities) {
  const sorted = Object.entries(probabilities).sort(([, one], [, other]) => other - one);
  const shown = sorted.length > MAX_BARS ? sorted.slice(0, MAX_BARS - 1) : sorted;
  const items = shown.map(([name, probability]) => bar(name, probability));
  return shown.length < sorted.length ? [...items, rest(sorted.slice(shown.length))] : items;
}

function bar(name, probability) {
  const item = clone("#bar");
  find(".bar-name", item).textContent = name;
  find(".bar-name", item).title = name;
  fill(item, probability);
  return item;
}

export function fill(item, probability) {
  find(".bar-fill", item).style.width = `${probability * 100}%`;
  find(".bar-value", item).textContent = percent(probability);
}

function rest(others) {
  const sum = others.reduce((total, [, probability]) => total + probability, 0);
  const words = `${counted(others.length, "other class", "other classes")}: ${percent(sum)}`;
  return make("li", "bar-rest", words);
}
