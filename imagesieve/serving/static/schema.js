// JSON Schemas of an OpenAPI description, as words and tables.

import { make } from "./dom.js";
import { phrases } from "./prose.js";
import { counted } from "./format.js";

const MAX_DEPTH = 4; // a schema may contain itself
const FORMATS = { binary: "bytes", byte: "Base64 text" };

// Follow `$ref` within the description.
export function resolve(spec, value) {
  let found = value;
  for (let steps = 0; found?.$ref?.startsWith("#/") && steps < 10; steps += 1) {
    const names = found.$ref.slice(2).split("/").map(unescapePointer);
    found = names.reduce((place, name) => place?.[name], spec);
  }
  return found ?? {};
}

const unescapePointer = (name) =>
  decodeURIComponent(name).replaceAll("~1", "/").replaceAll("~0", "~");

// Say in a few words what a value must be.
export function typeOf(spec, schema) {
  const { type, format, items, enum: values, const: constant, ...rest } = resolve(spec, schema);
  const variants = rest.oneOf ?? rest.anyOf;
  if (constant !== undefined) return JSON.stringify(constant);
  if (values) return values.map((value) => JSON.stringify(value)).join(" | ");
  if (variants) return [...new Set(variants.map((one) => typeOf(spec, one)))].join(" | ");
  if (items) return `list of ${typeOf(spec, items)}`;
  const kind = [type ?? (rest.properties ? "object" : "any")].flat().join(" | ");
  if (format in FORMATS) return FORMATS[format];
  return format ? `${kind} (${format})` : kind;
}

// Say what a value means, and within which limits.
export function wordsOf(description, schema) {
  const limits = [numbersOf(schema), lengthOf(schema), patternOf(schema), defaultOf(schema)];
  return [description, limits.filter(Boolean).join(", ")].filter(Boolean).join(" · ");
}

function numbersOf({ minimum, maximum, exclusiveMinimum, exclusiveMaximum }) {
  const parts = [
    minimum !== undefined && `from ${minimum}`,
    exclusiveMinimum !== undefined && `above ${exclusiveMinimum}`,
    maximum !== undefined && (minimum === undefined ? `up to ${maximum}` : `to ${maximum}`),
    exclusiveMaximum !== undefined && `below ${exclusiveMaximum}`,
  ];
  return parts.filter(Boolean).join(" ");
}

function lengthOf({ minLength, maxLength, minItems, maxItems }) {
  const least = minLength ?? minItems;
  const most = maxLength ?? maxItems;
  const unit = minLength ?? maxLength ? "character" : "item";
  if (most === undefined) return least === 1 ? "not empty" : least && `at least ${counted(least, unit)}`;
  return least ? `${least} to ${counted(most, unit)}` : `at most ${counted(most, unit)}`;
}

// A pattern full of escapes tells a person nothing that the description does not tell better.
function patternOf({ pattern }) {
  return pattern && !pattern.includes("\\") ? `like \`${pattern}\`` : "";
}

const defaultOf = ({ default: value }) =>
  value === undefined ? "" : `${JSON.stringify(value)} if not given`;

// Give rows of {path, type, words, isRequired}, nested objects after their parent.
function rowsOf(spec, schema, prefix = "", depth = 0) {
  const whole = merged(spec, schema);
  const element = whole.items && merged(spec, whole.items);
  if (element) return rowsOf(spec, element, `${prefix}[]`, depth);
  if (depth >= MAX_DEPTH) return [];
  return Object.entries(whole.properties ?? {}).flatMap(([name, property]) => {
    const path = prefix ? `${prefix}.${name}` : name;
    const told = resolve(spec, property);
    const row = {
      path,
      type: typeOf(spec, property),
      words: wordsOf(property.description ?? told.description, told),
      isRequired: (whole.required ?? []).includes(name),
    };
    return [row, ...rowsOf(spec, property, path, depth + 1)];
  });
}

// Give one schema with the properties of all that it is made of.
function merged(spec, schema) {
  const whole = resolve(spec, schema);
  const parts = [...(whole.allOf ?? []), ...(whole.oneOf ?? []), ...(whole.anyOf ?? [])];
  const found = parts.map((part) => merged(spec, part));
  return {
    ...Object.assign({}, ...found),
    ...whole,
    properties: Object.assign({}, ...found.map((part) => part.properties), whole.properties),
    required: whole.required ?? (whole.allOf ? found.flatMap((part) => part.required ?? []) : []),
  };
}

// Give a table of the schema's properties, or null when it has none. What is sent is marked where
// it must be there, what is answered where it need not.
export function schemaTable(spec, schema, { isAnswer }) {
  const mark = ({ isRequired }) => {
    if (isAnswer) return isRequired ? "" : "not always there";
    return isRequired ? "required" : "";
  };
  const rows = rowsOf(spec, schema).map((row) => fieldCells({ ...row, mark: mark(row) }));
  return rows.length ? fieldTable(rows) : null;
}

export const fieldTable = (rows) => table(["Name", "Type", "Meaning"], rows, "fields");

export function fieldCells({ path, type, words, mark }) {
  const name = [make("code", "", path), ...(mark ? [make("span", "mark", mark)] : [])];
  return [name, [make("span", "type", type)], phrases(words)];
}

// Give a table; each cell is a list of elements and texts.
export function table(titles, rows, className = "") {
  const frame = make("div", `table ${className}`);
  const element = make("table");
  const head = make("tr");
  head.append(...titles.map((title) => make("th", "", title)));
  element.createTHead().append(head);
  element.createTBody().append(...rows.map(tableRow));
  frame.append(element);
  return frame;
}

function tableRow(cells) {
  const row = make("tr");
  for (const parts of cells) {
    const cell = make("td");
    cell.append(...parts);
    row.append(cell);
  }
  return row;
}
