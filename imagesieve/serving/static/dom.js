// Small helpers for the document. Whatever comes from a file or from the server becomes text by
// textContent alone: a picture may be named "<img onerror=…>", and a class too.

export const find = (selector, root = document) => root.querySelector(selector);

export const clone = (selector) => find(selector).content.cloneNode(true).firstElementChild;

export function make(name, className = "", words = "") {
  const element = document.createElement(name);
  if (className) element.className = className;
  element.textContent = words;
  return element;
}

// Show the words in the element, or hide it when there are none.
export function tell(element, words) {
  element.textContent = words;
  element.hidden = !words;
}

// Tell those who cannot see what has changed on the page.
export function announce(words) {
  const announcer = find("#announcer");
  // The same words twice are no change, and would not be read a second time.
  announcer.textContent = announcer.textContent === words ? `${words}\u00a0` : words;
}

export function sleep(seconds, signal) {
  return new Promise((done, fail) => {
    if (signal?.aborted) return fail(signal.reason);
    const stop = () => {
      clearTimeout(timer);
      fail(signal.reason);
    };
    const timer = setTimeout(() => {
      signal?.removeEventListener("abort", stop);
      done();
    }, seconds * 1000);
    signal?.addEventListener("abort", stop, { once: true });
  });
}
