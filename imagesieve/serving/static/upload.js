// How pictures come in: dropped (also whole folders), pasted, chosen, photographed.

import { find } from "./dom.js";

// Call `add(files)` with what comes in, or `refuse(words)` when that is nothing to classify.
export function takePictures(add, refuse) {
  takeDrops(add, refuse);
  takeChosen("#choose", add);
  takeChosen("#photograph", add);
  takePasted(add, refuse);
  find("#drop").addEventListener("click", (event) => {
    if (!event.target.closest("label")) find("#choose").click(); // the whole field is a button
  });
}

function takeDrops(add, refuse) {
  const field = find("#drop");
  const mark = (event) => {
    event.preventDefault(); // anywhere on the page: a near miss must not open the picture instead
    field.classList.toggle("over", event.type === "dragover");
  };
  document.addEventListener("dragover", mark);
  document.addEventListener("dragleave", mark);
  document.addEventListener("drop", async (event) => {
    mark(event);
    const files = await filesOf(event.dataTransfer);
    if (files.length) {
      add(files);
    } else {
      refuse("There was no picture in that. From another page, save the picture first.");
    }
  });
}

function takeChosen(selector, add) {
  find(selector).addEventListener("change", (event) => {
    add([...event.target.files]);
    event.target.value = ""; // so that the same picture can be chosen again
  });
}

function takePasted(add, refuse) {
  document.addEventListener("paste", (event) => {
    if (event.target.matches("input")) return;
    const files = [...event.clipboardData.files];
    if (files.length) {
      add(files);
    } else {
      refuse("What was pasted is no picture.");
    }
  });
}

async function filesOf(transfer) {
  // All at once: the browser forgets the items as soon as this function waits for anything.
  const items = [...transfer.items].filter((item) => item.kind === "file");
  const found = items.map((item) => [item.webkitGetAsEntry?.(), item.getAsFile()]);
  const files = [];
  for (const [entry, file] of found) {
    if (entry?.isDirectory) {
      files.push(...(await picturesIn(entry)));
    } else if (file) {
      files.push(file);
    }
  }
  return files;
}

// Give the pictures of a folder and the folders in it, in the order of their names.
async function picturesIn(folder) {
  const files = [];
  for (const entry of await entriesOf(folder)) {
    if (entry.isDirectory) {
      files.push(...(await picturesIn(entry)));
    } else {
      const file = await new Promise((done, fail) => entry.file(done, fail));
      if (file.type.startsWith("image/")) files.push(file); // folders have lists and notes, too
    }
  }
  return files;
}

async function entriesOf(folder) {
  const reader = folder.createReader();
  const entries = [];
  for (;;) {
    const some = await new Promise((done, fail) => reader.readEntries(done, fail));
    if (!some.length) break; // the browser hands out a hundred at a time, then none
    entries.push(...some.filter((entry) => !entry.name.startsWith(".")));
  }
  return entries.sort((one, other) =>
    one.name.localeCompare(other.name, undefined, { numeric: true }),
  );
}
