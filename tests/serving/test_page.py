"""The page, driven in a real Chromium against the real server."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from painted import COLOURS, encode, paint
from playwright.sync_api import Browser, FileChooser, Page, expect, sync_playwright
from running import RunningServer, serving

CHROMIUM = Path("/usr/bin/chromium")  # Debian's; without it, the browser Playwright downloaded
OPTIONS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run"]

RED = encode(paint(COLOURS["red"]))
EVIL_NAME = "<img src=x onerror=document.title='broken-into'>.jpg"


@pytest.fixture(scope="module")
def server(version_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    policy = ("--decision", "confident", "--min-confidence", "0.6", "--fallback-class", "neutral")
    with serving(tmp_path_factory.mktemp("server"), version_path, *policy) as running_server:
        yield running_server


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        path = str(CHROMIUM) if CHROMIUM.exists() else None
        browser = playwright.chromium.launch(executable_path=path, args=OPTIONS)
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Browser, server: RunningServer) -> Iterator[Page]:
    page = browser.new_page()
    page.goto(server.url)
    yield page
    page.close()


def file(name: str, data: bytes) -> dict[str, object]:
    return {"name": name, "mimeType": "image/jpeg", "buffer": data}


def hand_over(page: Page, event: str, name: str, data: bytes) -> None:
    """Drop or paste a picture the way a browser reports it."""
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


def test_chosen_pictures_show_label_and_bars_newest_first(page: Page) -> None:
    names = list(COLOURS)
    page.set_input_files(
        "#choose", [file(f"{name}.jpg", encode(paint(COLOURS[name]))) for name in names]
    )
    expect(page.locator("#summary")).to_have_text("3 judged")
    expect(page.locator(".card .label")).to_have_text(names[::-1])
    newest = page.locator(".card").first
    expect(newest.locator(".bar-name")).to_have_text(["red", "green", "blue"])
    assert newest.locator(".bar-value").first.inner_text().endswith("\u00a0%")
    widths = [fill.bounding_box()["width"] for fill in newest.locator(".bar-fill").all()]
    assert widths == sorted(widths, reverse=True)
    assert widths[0] > 4 * widths[1] > 0
    expect(newest.locator(".decision")).to_be_hidden()
    expect(newest.locator(".timing")).to_contain_text("JPEG 64×48")
    assert newest.locator("img").evaluate("image => image.naturalWidth") == 64


@pytest.mark.parametrize("event", ["drop", "paste"])
def test_dropped_or_pasted_picture_is_judged(page: Page, event: str) -> None:
    hand_over(page, event, "red.jpg", RED)
    expect(page.locator(".card .label")).to_have_text("red")
    expect(page.locator(".card .name")).to_have_text("red.jpg")


def test_broken_file_shows_the_words_of_the_problem(page: Page) -> None:
    page.set_input_files("#choose", [file("page.jpg", b"<html>"), file("half.jpg", RED[:700])])
    expect(page.locator("#summary")).to_have_text("2 not judged")
    expect(page.locator(".card .label")).to_have_text(["Not judged"] * 2)
    problems = page.locator(".card .problem")
    expect(problems.nth(1)).to_contain_text("This is text such as HTML or SVG")
    expect(problems.nth(0)).to_contain_text("ends early")
    expect(page.locator(".bar")).to_have_count(0)


def test_decision_is_shown_when_it_differs_from_the_label(page: Page) -> None:
    page.set_input_files("#choose", [file("murky.jpg", encode(paint((110, 120, 100))))])
    expect(page.locator(".card .label")).to_have_text("green")
    expect(page.locator(".card .decision")).to_contain_text("Answered as neutral")


def test_file_name_is_text_and_never_markup(page: Page) -> None:
    title = page.title()
    hand_over(page, "drop", EVIL_NAME, RED)
    expect(page.locator(".card .label")).to_have_text("red")
    expect(page.locator(".card .name")).to_have_text(EVIL_NAME)
    expect(page.locator(".card img")).to_have_count(1)
    assert page.title() == title


def test_model_is_named_and_the_command_to_copy_has_this_address(
    page: Page, server: RunningServer, version_path: Path
) -> None:
    expect(page.locator("#model")).to_contain_text(
        f"{version_path.name} tells apart blue, green and red"
    )
    expect(page.locator("#curl")).to_contain_text(f"{server.url}/v1/predict")


def test_file_chooser_opens_from_the_keyboard(page: Page) -> None:
    chosen: list[FileChooser] = []
    page.on("filechooser", lambda chooser: chosen.append(chooser))
    page.keyboard.press("Tab")
    expect(page.locator("#choose")).to_be_focused()
    for _ in range(100):
        page.keyboard.press("Enter")  # Chromium ignores it until the page has settled
        page.wait_for_timeout(50)
        if chosen:
            break
    chosen[0].set_files([file("red.jpg", RED)])
    expect(page.locator(".card .label")).to_have_text("red")


def test_page_asks_nobody_but_this_server_and_breaks_no_rule(
    browser: Browser, server: RunningServer
) -> None:
    page = browser.new_page()
    asked, complaints = [], []
    page.on("request", lambda request: asked.append(request.url))
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.goto(server.url)
    page.set_input_files("#choose", [file("red.jpg", RED)])
    expect(page.locator(".card .label")).to_have_text("red")
    page.close()
    assert complaints == []
    assert all(url.startswith((server.url, "blob:", "data:")) for url in asked)


@pytest.mark.parametrize("width", [320, 390])
def test_phone_width_needs_no_sideways_scrolling(
    browser: Browser, server: RunningServer, width: int
) -> None:
    page = browser.new_page(viewport={"width": width, "height": 844})
    page.goto(server.url)
    hand_over(page, "drop", "x" * 200 + ".jpg", RED)
    expect(page.locator(".card .label")).to_have_text("red")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.close()
