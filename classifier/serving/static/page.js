"use strict";

// Whatever comes from a file or the server is set with textContent: a picture may be named
// "<img onerror=…>", and a class too.

const AT_ONCE = 2; // more would only wait for each other inside the server
const MAX_TRIES = 8; // of one picture while the server is busy or still loading

const find = (selector, root = document) => root.querySelector(selector);
const sleep = (seconds) => new Promise((done) => setTimeout(done, seconds * 1000));
// A number and its unit stay on one line.
const percent = (value) => `${(value * 100).toFixed(1)}\u00a0%`;
const milliseconds = (value) => `${value.toFixed(value < 10 ? 1 : 0)}\u00a0ms`;

const waiting = [];
let working = 0;
let judged = 0;
let failed = 0;

async function describeModel() {
  const line = find("#model");
  for (;;) {
    try {
      const answer = await fetch("/v1/model");
      const value = await answer.json();
      if (answer.ok) {
        const size = `${value.image_size.width}×${value.image_size.height}`;
        line.textContent = `${value.name} tells apart ${listed(value.classes)} · ${value.backbone} ${size} · ${value.engine}`;
        return;
      }
      line.textContent = value.detail;
    } catch {
      line.textContent = "The server does not answer. Is it running?";
    }
    await sleep(1);
  }
}

function listed(names) {
  const shown = names.length > 8 ? [...names.slice(0, 7), `${names.length - 7} more`] : names;
  return `${shown.slice(0, -1).join(", ")} and ${shown.at(-1)}`;
}

function add(files) {
  for (const file of files) {
    waiting.push([file, newCard(file)]);
  }
  while (working < AT_ONCE && waiting.length) {
    work();
  }
  summarise();
}

async function work() {
  working += 1;
  while (waiting.length) {
    const [file, card] = waiting.shift();
    try {
      show(card, await judge(file));
      judged += 1;
    } catch (error) {
      showProblem(card, error);
      failed += 1;
    }
    summarise();
  }
  working -= 1;
  summarise();
}

async function judge(file) {
  const start = performance.now();
  for (let tries = 1; ; tries += 1) {
    let answer;
    try {
      answer = await fetch("/v1/predict", {
        method: "POST",
        headers: { "Content-Type": "application/octet-stream" },
        body: file,
      });
    } catch {
      throw new Error("The picture could not be sent. Is the server running?");
    }
    const value = await answer.json();
    if (answer.ok) {
      return { ...value, roundTrip: performance.now() - start };
    }
    if (answer.status !== 503 || tries === MAX_TRIES) {
      throw new Error(value.detail || value.title);
    }
    await sleep(value.retry_after || 1);
  }
}

function newCard(file) {
  const card = find("#card").content.cloneNode(true).firstElementChild;
  const picture = find(".thumbnail", card);
  const address = URL.createObjectURL(file);
  picture.addEventListener("load", () => URL.revokeObjectURL(address));
  picture.addEventListener("error", () => {
    URL.revokeObjectURL(address);
    picture.hidden = true; // an empty frame rather than a broken-picture sign
  });
  picture.src = address;
  find(".name", card).textContent = file.name || "pasted picture";
  find("#cards").prepend(card);
  return card;
}

function show(card, value) {
  find(".label", card).textContent = value.label;
  find(".thumbnail", card).alt = `judged as ${value.label}`;
  if (value.decision !== value.label) {
    const least = value.decision_policy.min_confidence;
    const decision = find(".decision", card);
    decision.textContent = `Answered as ${value.decision}: no class reaches ${percent(least)}.`;
    decision.hidden = false;
  }
  const sorted = Object.entries(value.probabilities).sort(([, one], [, other]) => other - one);
  find(".bars", card).replaceChildren(...sorted.map(([name, probability]) => bar(name, probability)));
  const { decode, infer } = value.timing_ms;
  find(".timing", card).textContent = [
    `${value.image.format} ${value.image.width}×${value.image.height}`,
    `decoded in ${milliseconds(decode)}`,
    `judged in ${milliseconds(infer)}`,
    `answered in ${milliseconds(value.roundTrip)}`,
  ].join(" · ");
}

function bar(name, probability) {
  const item = find("#bar").content.cloneNode(true).firstElementChild;
  find(".bar-name", item).textContent = name;
  find(".bar-name", item).title = name;
  find(".bar-fill", item).style.width = `${probability * 100}%`;
  find(".bar-value", item).textContent = percent(probability);
  return item;
}

function showProblem(card, error) {
  find(".label", card).textContent = "Not judged";
  const problem = find(".problem", card);
  problem.textContent = sentence(error.message);
  problem.hidden = false;
}

function sentence(words) {
  const ending = /[.!?]$/.test(words) ? "" : ".";
  return words.charAt(0).toUpperCase() + words.slice(1) + ending;
}

function summarise() {
  const left = waiting.length + working;
  const parts = [];
  if (judged) parts.push(`${judged} judged`);
  if (failed) parts.push(`${failed} not judged`);
  if (left) parts.push(`${left} to go`);
  find("#summary").textContent = parts.join(" · ");
}

function acceptDrops() {
  const zone = find("#drop");
  const mark = (event) => {
    event.preventDefault(); // anywhere on the page: a near miss must not open the picture instead
    zone.classList.toggle("over", event.type === "dragover");
  };
  document.addEventListener("dragover", mark);
  document.addEventListener("dragleave", mark);
  document.addEventListener("drop", (event) => {
    mark(event);
    add(event.dataTransfer.files);
  });
}

acceptDrops();
find("#choose").addEventListener("change", (event) => {
  add(event.target.files);
  event.target.value = ""; // so that the same picture can be chosen again
});
document.addEventListener("paste", (event) => add(event.clipboardData.files));
find("#curl").textContent = `curl --data-binary @picture.jpg ${location.origin}/v1/predict`;
describeModel();
