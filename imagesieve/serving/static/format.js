// Numbers and lists as a person reads them. A number and its unit stay on one line.

export const percent = (share) => `${(share * 100).toFixed(1)}\u00a0%`;

export const milliseconds = (value) => `${value.toFixed(value < 10 ? 1 : 0)}\u00a0ms`;

export const counted = (number, one, many = `${one}s`) =>
  `${number.toLocaleString("en")}\u00a0${number === 1 ? one : many}`;

export function listed(names) {
  const shown = names.length > 8 ? [...names.slice(0, 7), `${names.length - 7} more`] : names;
  return shown.length < 2 ? shown.join("") : `${shown.slice(0, -1).join(", ")} and ${shown.at(-1)}`;
}

export function sentence(words) {
  const ending = /[.!?…]$/.test(words) ? "" : ".";
  return words.charAt(0).toUpperCase() + words.slice(1) + ending;
}
