// What a person knows better, told to the service.

import { ask, askJson, sendJson } from "./api.js";

const ADDRESS = "/v1/feedback";

// Correct a classified picture: by the id of its answer, or with the picture itself when the server
// holds it no more.
export async function correct({ id, held, file }, wanted) {
  if (held !== false) {
    try {
      return await sendJson(ADDRESS, { id, ...wanted });
    } catch (problem) {
      if (problem.status !== 404) throw problem;
    }
  }
  return correctWithPicture(file, wanted);
}

async function correctWithPicture(file, wanted) {
  const form = new FormData();
  form.append("image", file, "picture"); // the file's own name is nobody's business
  for (const [name, value] of Object.entries(wanted)) {
    form.append(name, String(value));
  }
  return askJson(ADDRESS, { method: "POST", body: form });
}

export const correctKnown = (sha256, wanted) => sendJson(ADDRESS, { sha256, ...wanted });

export const undo = async (sha256) =>
  (await ask(`${ADDRESS}/${sha256}`, { method: "DELETE" })).json();
