"""What tests of the pages have in common: images to hand over, and measures of what is shown."""

import contextlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from painted import COLOURS, encode, paint
from playwright.sync_api import Page, Route, expect

RED = encode(paint(COLOURS["red"]))

# Gives [ratio, text] of each text whose contrast to its ground is too low (WCAG 2.2, AA).
_FAINT = """() => {
  const channel = (value) => {
    const share = value / 255;
    return share <= 0.04045 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4;
  };
  const numbers = (colour) => colour.match(/[0-9.]+/g).map(Number);
  const light = ([red, green, blue]) =>
    0.2126 * channel(red) + 0.7152 * channel(green) + 0.0722 * channel(blue);
  const ground = (element) => {
    for (let one = element; one; one = one.parentElement) {
      const [red, green, blue, alpha = 1] = numbers(getComputedStyle(one).backgroundColor);
      if (alpha > 0) return [red, green, blue];
    }
    return [255, 255, 255];
  };
  const faint = [];
  for (const element of document.querySelectorAll("body *")) {
    const words = [...element.childNodes].filter((node) => node.nodeType === 3)
      .map((node) => node.textContent.trim()).join("");
    if (!words || !element.checkVisibility() || element.closest(":disabled")) continue;
    const style = getComputedStyle(element);
    const [one, other] = [light(numbers(style.color)), light(ground(element))];
    const ratio = (Math.max(one, other) + 0.05) / (Math.min(one, other) + 0.05);
    const isLarge = parseFloat(style.fontSize) >= 24 ||
      (parseFloat(style.fontSize) >= 18.66 && style.fontWeight >= 700);
    if (ratio < (isLarge ? 3 : 4.5)) faint.push([ratio, words]);
  }
  return faint;
}"""

# Gives the words of what is cut off at its right edge, those aside that end in an ellipsis.
_CUT = """() => [...document.querySelectorAll("main *")]
  .filter((one) => [...one.childNodes].some((node) => node.nodeType === 3 && node.data.trim()))
  .filter((one) => one.checkVisibility() && one.scrollWidth > one.clientWidth + 1)
  .filter((one) => getComputedStyle(one).display !== "inline")
  .filter((one) => !one.closest("pre") && !one.closest(".button"))
  .filter((one) => getComputedStyle(one).textOverflow !== "ellipsis")
  .map((one) => one.className + ": " + one.textContent.trim().slice(0, 40))"""


@contextlib.contextmanager
def heard(page: Page, event: str, tell: Callable[[Any], Any]) -> Iterator[list[Any]]:
    """Return a list to which `tell` of each event is added, as long as the block lasts."""
    found: list[Any] = []

    def hear(what: Any) -> None:
        found.append(tell(what))

    page.on(event, hear)
    try:
        yield found
    finally:
        page.remove_listener(event, hear)


def file(name: str, data: bytes, media_type: str = "image/jpeg") -> dict[str, Any]:
    """Return a file as Playwright takes it."""
    return {"name": name, "mimeType": media_type, "buffer": data}


def choose(page: Page, *files: dict[str, Any]) -> None:
    """Choose files."""
    page.set_input_files("#choose", list(files))


def classified(page: Page, number: int = 1) -> None:
    """Wait until so many images are classified."""
    expect(page.locator('.card[data-state="classified"]')).to_have_count(number)


def murky(seed: int) -> bytes:
    """Return an image that the model is unsure of; another one for each seed."""
    return encode(paint((110, 120, 100), seed=seed))


def hand_over(page: Page, event: str, name: str, data: bytes) -> None:
    """Drop or paste an image the way a browser reports it."""
    page.evaluate(
        """([kind, name, bytes]) => {
          const transfer = new DataTransfer();
          transfer.items.add(new File([new Uint8Array(bytes)], name, {type: "image/jpeg"}));
          const event = kind === "drop"
            ? new DragEvent("drop", {dataTransfer: transfer, bubbles: true, cancelable: true})
            : new ClipboardEvent("paste", {clipboardData: transfer, bubbles: true});
          document.querySelector("#drop").dispatchEvent(event);
        }""",
        [event, name, list(data)],
    )


def refuse(
    route: Route, status: int, slug: str, detail: str, headers: Mapping[str, str] | None = None
) -> None:
    """Answer a request of the page the way the service refuses."""
    document = {"type": f"/problems/{slug}", "title": slug, "status": status, "detail": detail}
    route.fulfill(
        status=status,
        headers={"Content-Type": "application/problem+json", **(headers or {})},
        body=json.dumps(document),
    )


def change_answer(page: Page, pattern: str, change: Mapping[str, Any]) -> None:
    """Have the service's JSON answers arrive with other values."""

    def changed(route: Route) -> None:
        answer = route.fetch()
        route.fulfill(response=answer, json={**answer.json(), **change})

    page.route(pattern, changed)


def faint_texts(page: Page) -> Sequence[Any]:
    """Return the texts that are hard to read, each with its contrast."""
    return page.evaluate(_FAINT)


def cut_texts(page: Page) -> Sequence[str]:
    """Return the texts that do not fit their places."""
    return page.evaluate(_CUT)


def sideways_pixels(page: Page) -> int:
    """Return by how much the page is wider than the window."""
    return page.evaluate("document.documentElement.scrollWidth - innerWidth")
