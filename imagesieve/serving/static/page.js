// The page for trying the model: pictures in, cards out.

import { askJson } from "./api.js";
import { Card, FAILED, CLASSIFIED } from "./card.js";
import { announce, find, tell } from "./dom.js";
import { takePictures } from "./upload.js";
import { mayAskAgain } from "./key.js";
import { onKey } from "./keyboard.js";
import { Queue } from "./queue.js";
import { counted, listed, sentence } from "./format.js";

const MAX_CARDS = 1000; // the page stays light; more are a task for the command line
const MOVES = { j: 1, ArrowDown: 1, ArrowRight: 1, k: -1, ArrowUp: -1, ArrowLeft: -1 };

const CARD_KEYS = {
  c: (card) => card.openCorrection(),
  e: (card) => card.explain(),
  Escape: (card) => card.closeParts(),
};

const classifying = new Queue(2); // more would only wait for each other inside the server
const thumbnails = new Queue(2); // a decoded photograph takes 50 megabytes
const cards = new Map(); // element -> card, in the order they came
let corrections = []; // corrected cards, the latest last
let digest = null; // of the model that the page names
let announced = 0; // classified and failed cards that those who listen have heard of

const list = find("#cards");

const events = {
  again: classifyAgain,
  corrected: (card) => corrections.push(card),
  removed: removeAndMoveOn,
};

function add(files) {
  mayAskAgain();
  const taken = files.slice(0, MAX_CARDS);
  const words = `Only the first ${counted(MAX_CARDS, "picture")} of ${files.length.toLocaleString("en")} were taken.`;
  tell(find("#upload-problem"), taken.length < files.length ? words : "");
  const added = taken.map((file) => new Card(file, events));
  list.prepend(...added.map((card) => card.element));
  for (const card of added) {
    cards.set(card.element, card);
    thumbnails.run(() => card.showThumbnail());
    classify(card);
  }
  dropOldest();
  summarise();
}

async function classify(card) {
  await classifying.run(() => card.classify());
  if (card.answer && card.answer.model.digest !== digest) describeModel(); // it has been replaced
  summarise();
}

function classifyAgain(card) {
  mayAskAgain();
  card.wait();
  classify(card);
  summarise();
}

function dropOldest() {
  for (const card of [...cards.values()].slice(0, Math.max(0, cards.size - MAX_CARDS))) {
    remove(card);
  }
}

function remove(card) {
  card.remove();
  cards.delete(card.element);
  corrections = corrections.filter((other) => other !== card);
}

function removeAndMoveOn(card) {
  const next = card.element.nextElementSibling ?? card.element.previousElementSibling;
  remove(card);
  (next ?? find("#choose")).focus();
  summarise();
}

function clear() {
  [...cards.values()].forEach(remove);
  find("#choose").focus();
  summarise();
}

function summarise() {
  const all = [...cards.values()];
  const classified = all.filter((card) => card.state === CLASSIFIED);
  const failed = all.filter((card) => card.state === FAILED).length;
  const left = all.length - classified.length - failed;
  const parts = [];
  if (classified.length) parts.push(`${classified.length} classified${tally(classified)}`);
  if (failed) parts.push(`${failed} not classified`);
  if (left) parts.push(`${left} to go`);
  find("#summary").textContent = parts.join(" · ");
  find("#clear").hidden = find("#keys").hidden = !all.length;
  document.body.classList.toggle("has-cards", all.length > 0);
  announceEnd(classified.length + failed, left);
}

// Only the end of a run is told aloud: a thousand lines of progress would drown everything.
function announceEnd(done, left) {
  if (left) return;
  if (done > announced) announce(`Done: ${find("#summary").textContent}.`);
  announced = done;
}

function tally(classified) {
  if (classified.length < 2) return "";
  const counts = new Map();
  for (const { answer } of classified) {
    counts.set(answer.decision, (counts.get(answer.decision) ?? 0) + 1);
  }
  const most = [...counts].sort(([, one], [, other]) => other - one).slice(0, 6);
  const rest = counts.size > most.length ? " …" : "";
  return ` (${most.map(([name, count]) => `${count} ${name}`).join(", ")}${rest})`;
}

function press(key, event) {
  const card = currentCard();
  if (card?.correction.isOpen && !event.repeat && card.correction.press(key)) return true;
  if (key in MOVES) return move(MOVES[key]);
  if (key === "u") return undoCorrection(card);
  const act = card && CARD_KEYS[key];
  if (act) act(card);
  return Boolean(act);
}

const currentCard = () => cards.get(document.activeElement.closest(".card"));

function move(step) {
  const current = document.activeElement.closest(".card");
  const next = current ? neighbour(current, step) : list.firstElementChild;
  if (!next) return false;
  next.focus({ preventScroll: true });
  next.scrollIntoView({ block: "nearest" });
  return true;
}

const neighbour = (element, step) =>
  (step > 0 ? element.nextElementSibling : element.previousElementSibling) ?? element;

function undoCorrection(card) {
  const latest = card?.isCorrected ? card : corrections.findLast((other) => other.isCorrected);
  latest?.undo();
  return Boolean(latest);
}

async function describeModel() {
  const line = find("#model");
  try {
    const told = await askJson("/v1/model", {
      onWait: (problem) => (line.textContent = problem.message),
    });
    digest = told.digest;
    const size = `${told.image_size.width}×${told.image_size.height}`;
    line.textContent = `${told.name} tells apart ${listed(told.classes)} · ${told.backbone} ${size} · ${told.engine}`;
  } catch (error) {
    line.textContent = sentence(error.message);
  }
}

takePictures(add, (words) => tell(find("#upload-problem"), words));
onKey(press);
find("#clear").addEventListener("click", clear);
find("#curl").textContent = `curl --data-binary @picture.jpg ${location.origin}/v1/predict`;
document.addEventListener("newkey", describeModel);
describeModel();
