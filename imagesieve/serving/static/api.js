// Requests to the service: the key goes along, a busy or absent server is waited for, and what
// goes wrong comes back as a sentence.

import { find, sleep, tell } from "./dom.js";
import { currentKey, otherKey } from "./key.js";
import { sentence } from "./format.js";

const PATIENCE = 60; // seconds that one request waits for a busy server, all pauses together
const MAX_LOST = 3; // times that a request gets lost while the server does answer others
const MAX_PAUSE = 5; // seconds between two questions whether the server is back
const PING_SECONDS = 5;

// Nobody else gets a place by waiting: what the server cannot store now, it cannot in a moment.
const FINAL = new Set(["feedback-unavailable", "explaining-unavailable"]);

const WORDS = {
  401: "The server wants a key.",
  403: "This key does not allow that.",
  404: "This server does not offer that.",
  413: "That is more than the server takes.",
  415: "The server does not take that kind of file.",
  422: "The server cannot use this picture.",
  429: "That was too much in a short time.",
  500: "The server failed.",
  502: "Something between here and the server failed.",
  503: "The server is busy.",
  504: "The server took too long.",
};

const LOST =
  "It could not be sent, although the server is there: is the file still in its place, and not too large?";

export class Problem extends Error {
  constructor(words, status = 0, slug = "", retryAfter = null) {
    super(sentence(words));
    this.status = status;
    this.slug = slug;
    this.retryAfter = retryAfter; // seconds, or null when trying again is no use
  }
}

// Ask until there is a good answer, and give it; throw a Problem when there will be none.
export async function ask(path, { signal, onWait = () => {}, ...options } = {}) {
  let waited = 0;
  let lost = 0;
  for (;;) {
    const key = currentKey();
    const answer = await send(path, key, { signal, ...options });
    if (answer === null) {
      lost += 1;
      if (lost > MAX_LOST) throw new Problem(LOST);
      await serverIsThere();
      continue;
    }
    if (answer.ok) return answer;
    const problem = await readProblem(answer);
    if (problem.status === 401) {
      await otherKey(key);
      continue;
    }
    if (problem.retryAfter === null || waited + problem.retryAfter > PATIENCE) throw problem;
    waited += problem.retryAfter;
    onWait(problem);
    await sleep(problem.retryAfter, signal);
  }
}

export const askJson = async (path, options) => (await ask(path, options)).json();

export const sendJson = (path, value, options) =>
  askJson(path, {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(value),
    ...options,
  });

// Give the answer, or null when the request did not arrive or its answer did not.
async function send(path, key, { signal, headers = {}, ...options }) {
  const authorization = key === null ? {} : { Authorization: `Bearer ${key}` };
  try {
    return await fetch(path, { signal, headers: { ...headers, ...authorization }, ...options });
  } catch (error) {
    if (signal?.aborted) throw error;
    return null;
  }
}

async function readProblem(answer) {
  const { status } = answer;
  const value = await answer.json().catch(() => ({})); // a proxy's own page is no JSON
  const slug = (value.type ?? "").split("/").at(-1);
  const fallback = WORDS[status] ?? `The server answered ${status} ${answer.statusText}`;
  // Of an address that is not there the server can only say that it was mistyped.
  const told = slug === "not-found" ? "" : value.detail || value.title;
  const words = sentence(told || fallback);
  return new Problem(words + traceOf(answer, words), status, slug, pauseOf(answer, slug));
}

// Of the server's own faults, say under which number its log has them.
function traceOf(answer, words) {
  const id = answer.headers.get("X-Request-Id");
  const isNews = answer.status === 500 && id && !words.includes(id);
  return isNews ? ` Its log has the details under request ${id}.` : "";
}

// Seconds to wait before it makes sense to try again, or null.
function pauseOf(answer, slug) {
  const header = answer.headers.get("Retry-After");
  if (header === null || ![429, 503].includes(answer.status) || FINAL.has(slug)) return null;
  const seconds = /^\d+$/.test(header) ? Number(header) : (Date.parse(header) - Date.now()) / 1000;
  return Math.max(1, seconds || 1);
}

let watch = null; // one loop asks for all that wait

function serverIsThere() {
  watch ??= untilServerAnswers().finally(() => {
    watch = null;
  });
  return watch;
}

async function untilServerAnswers() {
  const notice = find("#notice");
  for (let pause = 0.5; !(await answers()); pause = Math.min(pause * 1.5, MAX_PAUSE)) {
    tell(notice, "The server does not answer. This page waits until it is back …");
    await sleep(pause);
  }
  tell(notice, "");
}

async function answers() {
  try {
    const answer = await fetch("/healthz", { signal: AbortSignal.timeout(PING_SECONDS * 1000) });
    return ![502, 504].includes(answer.status); // those come from a proxy in front of nobody
  } catch {
    return false;
  }
}
