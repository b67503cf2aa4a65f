// The page for reviewing: one picture at a time, one key for each answer.

import { ReviewQueue } from "./review_queue.js";
import { fill } from "./bars.js";
import { choiceOf, choicesFor } from "./choices.js";
import { announce, clone, find, tell } from "./dom.js";
import { correctKnown, undo } from "./feedback.js";
import { mayAskAgain } from "./key.js";
import { onKey } from "./keyboard.js";
import { Prefetcher } from "./prefetch.js";
import { counted, percent, sentence } from "./format.js";

const AHEAD = 3; // pictures fetched before their turn

const reviewQueue = new ReviewQueue();
const prefetcher = new Prefetcher();
const past = []; // what was done here: {picture, words, wasSkipped}, the latest last
let choices = [];
let isSeen = false; // a key counts only for a picture that is before the eyes
let isBusy = false; // the server is being told something

const REASONS = {
  uncertain: "The model is unsure",
  audit: "Dropped, and kept to check the filter",
  recent: "The model was sure",
};

async function look() {
  mayAskAgain();
  tell(find("#trouble"), "");
  find("#look-again").disabled = true;
  try {
    await reviewQueue.fill();
    await show();
  } catch (error) {
    tell(find("#trouble"), sentence(error.message));
    showEmpty("No pictures could be fetched", "");
  }
  find("#loading").hidden = true;
  find("#look-again").disabled = false;
}

// Show the current picture, or that there is none.
async function show() {
  showCounts();
  const picture = reviewQueue.current;
  isSeen = false;
  find("#open-picture").hidden = !picture;
  find("#empty").hidden = Boolean(picture);
  prefetcher.keep(reviewQueue.pictures.slice(0, 1 + AHEAD).map(({ sha256 }) => sha256));
  if (!picture) return showEmpty(...wordsOfEmpty());
  showAnswers(picture);
  await showImage(picture);
}

async function showImage(picture) {
  const image = find("#picture");
  image.hidden = true;
  try {
    tell(find("#picture-words"), "Fetching the picture …");
    image.src = await prefetcher.address(picture.sha256);
    await image.decode();
    if (picture !== reviewQueue.current) return;
    tell(find("#picture-words"), "");
    image.hidden = false;
    isSeen = true;
    announce(`${find("#reason").textContent} Which class is right?`);
  } catch (error) {
    if (picture !== reviewQueue.current) return;
    tell(find("#picture-words"), `${sentence(error.message)} Press s to go on.`);
  }
}

function showAnswers(picture) {
  find("#reason").textContent = reasonOf(picture);
  find("#picture").alt = `A picture that the model calls ${picture.label}`;
  choices = choicesFor(reviewQueue.classes);
  const rows = choices.filter((choice) => choice.wanted.label).map((choice) => row(choice, picture));
  find("#choices").replaceChildren(...rows);
  find("#undo").disabled = !past.length;
  find("#last").textContent = past.at(-1)?.words ?? "";
}

function row(choice, picture) {
  const button = clone("#row");
  const cap = find("kbd", button);
  cap.textContent = choice.key;
  cap.hidden = !choice.key;
  find(".bar-name", button).textContent = choice.name;
  fill(button, probabilityOf(picture, choice.name));
  button.classList.toggle("answered", choice.name === picture.label);
  button.addEventListener("click", () => decide(choice));
  return button;
}

// The picture may have been classified by a version with other classes.
const probabilityOf = ({ probabilities }, name) =>
  Object.hasOwn(probabilities, name) ? probabilities[name] : 0;

function reasonOf({ reason, label, probability, decision }) {
  const answered = decision === label ? "" : `, answered as ${decision}`;
  return `${REASONS[reason] ?? reason}: ${label} with ${percent(probability)}${answered}.`;
}

// Do one thing after the other: what is pressed while the server is told something is not meant
// for the next picture. Gives whether it was done.
async function alone(act) {
  if (isBusy) return false;
  isBusy = true;
  tell(find("#trouble"), "");
  try {
    await act();
    return true;
  } catch (error) {
    tell(find("#trouble"), sentence(error.message));
    return false;
  } finally {
    isBusy = false;
  }
}

async function decide(choice) {
  if (!isSeen) return;
  const picture = reviewQueue.current;
  const isDone = await alone(async () => {
    await correctKnown(picture.sha256, choice.wanted);
    reviewQueue.settle();
    remember({ picture, words: `Last one: ${choice.name}.`, wasSkipped: false });
  });
  if (isDone) await goOn({ recount: picture.reason === "audit" });
}

async function skip() {
  const picture = reviewQueue.current;
  const isDone = await alone(() => {
    reviewQueue.skip();
    remember({ picture, words: "Last one: skipped.", wasSkipped: true });
  });
  if (isDone) await goOn({});
}

function remember(step) {
  past.push(step);
  announce(step.words);
}

// Show the next picture; fetch more when few are left, or new counts when they have changed.
async function goOn({ recount = false }) {
  if (!reviewQueue.current) return look();
  const shown = show();
  if (recount || reviewQueue.isLow) await refill();
  await shown;
}

async function refill() {
  try {
    await reviewQueue.fill();
    showCounts();
  } catch (error) {
    tell(find("#trouble"), sentence(error.message));
  }
}

async function takeBack() {
  const step = past.at(-1);
  const isDone = await alone(async () => {
    if (!step.wasSkipped) await undo(step.picture.sha256);
    past.pop();
    reviewQueue.bringBack(step.picture);
    announce("Undone.");
  });
  if (isDone) await show();
}

function showCounts() {
  find("#progress").textContent = `${reviewQueue.waiting} waiting · ${reviewQueue.corrected} corrected`;
  find("#audit").hidden = !reviewQueue.audit;
  if (reviewQueue.audit) find("#audit-words").textContent = auditWords(reviewQueue.audit);
}

function auditWords({ kept, reviewed, missed, missed_share: share, interval }) {
  if (!reviewed) {
    return `${counted(kept, "dropped picture")} kept at random; none has been looked at yet.`;
  }
  const range = interval ? ` (${interval.map((end) => (end * 100).toFixed(1)).join(" to ")})` : "";
  const wrong = `${missed} ${missed === 1 ? "was" : "were"} wrong`;
  return `Of ${counted(reviewed, "dropped picture")} looked at, ${wrong}: ${percent(share)}${range}.`;
}

function wordsOfEmpty() {
  if (reviewQueue.numSkipped) {
    return ["Only skipped pictures are left", `You skipped ${counted(reviewQueue.numSkipped, "picture")}.`];
  }
  const words = "Pictures that the model is unsure of wait here until somebody looks at them.";
  return [past.length ? "All done" : "Nothing to review", words];
}

function showEmpty(title, words) {
  find("#open-picture").hidden = true;
  find("#empty").hidden = false;
  find("#empty-title").textContent = title;
  find("#empty-words").textContent = words;
  find("#look-again").textContent = reviewQueue.numSkipped ? "Show them again" : "Look again";
  find("#look-at-sure").hidden = !reviewQueue.hasSure;
  find("#undo-empty").hidden = !past.length;
}

function lookAtSure() {
  reviewQueue.withSure = true;
  look();
}

function lookAgain() {
  reviewQueue.forgetSkipped();
  past.splice(0, past.length, ...past.filter((step) => !step.wasSkipped));
  look();
}

function press(key, event) {
  if (event.repeat) return false; // a key held down must not label whatever comes next
  const act = commandOf(key);
  act?.();
  return Boolean(act);
}

function commandOf(key) {
  if (key === "u" && past.length) return takeBack;
  if (!reviewQueue.current) return null;
  if (key === "s") return skip;
  const choice = choiceOf(key, choices);
  return choice && (() => decide(choice));
}

onKey(press);
find("#none").addEventListener("click", () => decide(choiceOf("x", choices)));
find("#skip").addEventListener("click", skip);
find("#undo").addEventListener("click", takeBack);
find("#undo-empty").addEventListener("click", takeBack);
find("#look-again").addEventListener("click", lookAgain);
find("#look-at-sure").addEventListener("click", lookAtSure);
document.addEventListener("newkey", look);
document.addEventListener("visibilitychange", () => {
  if (!document.hidden && !find("#empty").hidden && !reviewQueue.numSkipped) look();
});
look();
