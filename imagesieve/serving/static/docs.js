// The API's description for people, made from /openapi.json.

import { askJson } from "./api.js";
import { copyButton } from "./copy.js";
import { find, make } from "./dom.js";
import { phrases, prose } from "./prose.js";
import { fieldCells, fieldTable, resolve, schemaTable, table, typeOf, wordsOf } from "./schema.js";
import { sentence } from "./format.js";

const METHODS = ["get", "post", "put", "patch", "delete"];

async function describe() {
  try {
    show(await askJson("/openapi.json"));
  } catch (error) {
    find("#docs-version").textContent = sentence(error.message);
  }
}

function show(spec) {
  find("#docs-title").textContent = spec.info.title;
  find("#docs-version").textContent = `Version ${spec.info.version} · at ${location.origin}`;
  find("#docs-words").replaceChildren(...prose(spec.info.description));
  const groups = groupsOf(spec);
  find("#groups").replaceChildren(...groups.map((group) => chapter(spec, group)));
  showErrors(spec, groups);
  find("#contents").replaceChildren(...groups.map(contentsOf), link("#errors", "What can go wrong"));
  document.getElementById(location.hash.slice(1))?.scrollIntoView(); // it was not there on loading
}

// Give [{name, description, routes}], in the order of the tags; what has no tag comes last.
function groupsOf(spec) {
  const groups = new Map((spec.tags ?? []).map((tag) => [tag.name, { ...tag, routes: [] }]));
  for (const route of routesOf(spec)) {
    const name = route.operation.tags?.[0] ?? "Other";
    if (!groups.has(name)) groups.set(name, { name, routes: [] });
    groups.get(name).routes.push(route);
  }
  return [...groups.values()].filter((group) => group.routes.length);
}

function routesOf(spec) {
  return Object.entries(spec.paths).flatMap(([path, item]) =>
    METHODS.filter((method) => item[method]).map((method) => ({
      path,
      method,
      operation: item[method],
      shared: item.parameters ?? [],
      id: `${method}${path}`.replace(/[^a-zA-Z0-9]+/g, "-"),
    })),
  );
}

function contentsOf({ name, routes }) {
  const part = make("div", "contents-group");
  const list = make("ul");
  for (const route of routes) {
    const item = make("li");
    const anchor = link(`#${route.id}`, "");
    anchor.append(methodSign(route.method), breakablePath(route.path));
    item.append(anchor);
    list.append(item);
  }
  part.append(make("h2", "", name), list);
  return part;
}

// A long path is broken before a slash rather than within a word.
function breakablePath(path) {
  const words = make("span", "contents-path");
  for (const part of path.split(/(?=\/)/)) words.append(make("wbr"), part);
  return words;
}

function link(address, words) {
  const anchor = make("a", "", words);
  anchor.href = address;
  return anchor;
}

const methodSign = (method) => make("span", `method ${method}`, method.toUpperCase());

function chapter(spec, { name, description, routes }) {
  const section = make("section", "chapter");
  section.append(make("h2", "", name), ...prose(description));
  section.append(...routes.map((route) => routeCard(spec, route)));
  return section;
}

function routeCard(spec, route) {
  const { operation } = route;
  const card = make("article", "route");
  card.id = route.id;
  card.append(heading(route));
  if (operation.summary) card.append(make("p", "route-summary", operation.summary));
  card.append(...prose(operation.description));
  card.append(...scopeLine(spec, operation), example(route));
  card.append(...parameters(spec, route), ...requestForms(spec, operation));
  card.append(...answers(spec, operation));
  return card;
}

function heading({ path, method, operation }) {
  const title = make("h3", operation.deprecated ? "deprecated" : "");
  title.append(methodSign(method), make("code", "", path));
  if (operation.deprecated) title.append(make("span", "chip", "old"));
  return title;
}

function scopeLine(spec, operation) {
  const wanted = operation.security ?? spec.security ?? [];
  const scopes = new Set(wanted.flatMap((way) => Object.values(way).flat()));
  if (!wanted.length) return [];
  const allowed = scopes.size ? ` that allows ${[...scopes].join(" or ")}` : "";
  return [make("p", "fine", `Where keys are set: asks for a key${allowed}.`)];
}

function parameters(spec, { operation, shared }) {
  const found = [...shared, ...(operation.parameters ?? [])].map((one) => resolve(spec, one));
  if (!found.length) return [];
  return [make("h4", "", "Parameters"), fieldTable(found.map((one) => parameterCells(spec, one)))];
}

function parameterCells(spec, { name, in: place, description, required, schema }) {
  const told = resolve(spec, schema);
  return fieldCells({
    path: name,
    type: `${typeOf(spec, schema)}, in ${place}`,
    words: wordsOf(description ?? told.description, told),
    mark: required ? "required" : "",
  });
}

function requestForms(spec, operation) {
  const body = resolve(spec, operation.requestBody);
  const forms = Object.entries(body.content ?? {});
  if (!forms.length) return [];
  const parts = forms.map((form) => requestForm(spec, form));
  return [make("h4", "", "Request"), ...prose(body.description), ...parts];
}

// The fields of a form are folded away: most forms of one route have the same.
function requestForm(spec, [type, media]) {
  const parts = mediaParts(spec, media, { isAnswer: false });
  const whole = make(parts.length ? "details" : "div", "fold");
  const title = make(parts.length ? "summary" : "p");
  title.append(...mediaTitle(spec, type, media));
  whole.append(title, ...parts);
  return whole;
}

function mediaTitle(spec, type, { schema }) {
  const { description, properties } = resolve(spec, schema);
  const words = description ?? (schema && !properties ? typeOf(spec, schema) : "");
  const note = make("span", "soft");
  note.append(...phrases(words === "object" ? "" : words));
  return [make("code", "media-type", type), " ", note];
}

function mediaParts(spec, media, options) {
  const fields = media.schema && schemaTable(spec, media.schema, options);
  return [...(fields ? [fields] : []), ...samples(spec, media)];
}

function samples(spec, media) {
  const named = Object.values(media.examples ?? {}).map((one) => resolve(spec, one).value);
  const found = media.example === undefined ? named : [media.example, ...named];
  return found.filter((value) => value !== undefined).map((value) => codeBlock(pretty(value)));
}

const pretty = (value) => (typeof value === "string" ? value : JSON.stringify(value, null, 2));

function answers(spec, operation) {
  const found = Object.entries(operation.responses ?? {});
  const good = found.filter(([status]) => status < "400");
  const bad = found.filter(([status]) => status >= "400");
  const parts = good.map(([status, answer]) => goodAnswer(spec, status, resolve(spec, answer)));
  if (bad.length) parts.push(badAnswers(spec, bad));
  return [make("h4", "", "Answers"), ...parts];
}

function goodAnswer(spec, status, answer) {
  const whole = make("details", "fold");
  const summary = make("summary");
  summary.append(make("span", "status good", status), ...phrases(answer.description));
  whole.append(summary);
  for (const [type, media] of Object.entries(answer.content ?? {})) {
    const title = make("p");
    title.append(...mediaTitle(spec, type, media));
    whole.append(title, ...mediaParts(spec, media, { isAnswer: true }));
  }
  if (!answer.content) whole.append(make("p", "fine", "Without a body."));
  return whole;
}

function badAnswers(spec, bad) {
  const whole = make("details", "fold");
  const statuses = bad.map(([status]) => status).join(", ");
  whole.append(make("summary", "", `When something is wrong: ${statuses}`));
  whole.append(errorTable(bad.flatMap(([status, answer]) => errorsOf(spec, status, answer))));
  return whole;
}

// A status may stand for several kinds of errors, described as "`kind`: words; `kind`: words".
function errorsOf(spec, status, answer) {
  const { description = "" } = resolve(spec, answer);
  return description.split(/;\s+(?=`[a-z0-9-]+`: )/).map((part) => {
    const [, kind = "", words = part] = part.match(/^`([a-z0-9-]+)`: (.*)$/s) ?? [];
    return { status, kind, words };
  });
}

function errorTable(errors) {
  const rows = errors.map(({ status, kind, words }) => [
    [make("span", "status", status)],
    kind ? [make("code", "", kind)] : [],
    phrases(words),
  ]);
  return table(["Status", "Kind", "What it says"], rows);
}

const example = (route) => codeBlock(route.operation["x-curl"] ?? curlOf(route));

function curlOf({ path, method }) {
  const verb = method === "get" ? "" : `-X ${method.toUpperCase()} `;
  return `curl ${verb}${location.origin}${path}`;
}

function codeBlock(text) {
  const block = make("div", "code");
  const code = make("pre");
  code.append(make("code", "", text));
  block.append(code, copyButton(() => text));
  return block;
}

// One table of all that any route may answer when something is wrong.
function showErrors(spec, groups) {
  const routes = groups.flatMap((group) => group.routes);
  const answers = routes.flatMap(({ operation }) => Object.entries(operation.responses ?? {}));
  const found = new Map();
  for (const [status, answer] of answers.filter(([status]) => status >= "400")) {
    for (const error of errorsOf(spec, status, answer)) {
      found.set(Object.values(error).join(" "), error);
    }
  }
  const sorted = [...found.keys()].sort().map((name) => found.get(name));
  find("#error-table").replaceChildren(errorTable(sorted));
  find("#errors").hidden = !sorted.length;
}

// Beside the text there is room for the list of routes; above it, it would push the text away.
find("#contents-fold").open = matchMedia("(min-width: 55rem)").matches;
describe();
