"""The page for trying the model, in a real Chromium: on desks and telephones, light and dark."""

import re
from pathlib import Path

import pytest
import requests
from browsing import (
    RED,
    change_answer,
    choose,
    classified,
    cut_texts,
    faint_texts,
    file,
    hand_over,
    heard,
    murky,
    sideways_pixels,
)
from painted import COLOURS, encode, paint
from playwright.sync_api import Page, Request, Route, expect
from running import SECONDS

EVIL = "<img src=x onerror=document.title='broken-into'>"


def test_chosen_images_show_label_and_bars_in_the_order_chosen(page: Page) -> None:
    # Other bytes than in other tests, or the server might answer from its cache in no time.
    images = {name: encode(paint(COLOURS[name]), quality=91) for name in COLOURS}
    choose(page, *(file(f"{name}.jpg", data) for name, data in images.items()))
    expect(page.locator("#summary")).to_have_text("3 classified (1 blue, 1 green, 1 red)")
    expect(page.locator(".card .label")).to_have_text(list(COLOURS))
    last = page.locator(".card").last
    expect(last.locator(".bar-name")).to_have_text(["red", "green", "blue"])
    assert last.locator(".bar-value").first.inner_text().endswith("\u00a0%")
    widths = [fill.bounding_box()["width"] for fill in last.locator(".bar-fill").all()]
    assert widths == sorted(widths, reverse=True)
    assert widths[0] > 4 * widths[1] > 0
    expect(last.locator(".decision")).to_be_hidden()
    expect(last.locator(".timing")).to_contain_text("JPEG 64×48")
    expect(last.locator(".timing")).to_contain_text("classified in")
    expect(last.locator("img.thumbnail")).to_be_visible()
    assert last.locator("img.thumbnail").evaluate("image => image.naturalWidth") == 64


def test_pasted_image_is_classified(page: Page) -> None:
    hand_over(page, "paste", "red.jpg", RED)
    expect(page.locator(".card .label")).to_have_text("red")
    expect(page.locator(".card .name")).to_have_text("red.jpg")


def test_dropped_folder_gives_its_images_in_order(page: Page) -> None:
    page.evaluate(
        """(bytes) => {
          const image = (name, type) => ({name, isDirectory: false, file: (done) =>
            done(new File([new Uint8Array(bytes)], name, {type}))});
          const folder = (name, entries) => {
            const left = [entries, []];
            return {name, isDirectory: true, createReader: () =>
              ({readEntries: (done) => done(left.shift())})};
          };
          const tree = folder("all", [
            image("10.jpg", "image/jpeg"),
            image("notes.txt", "text/plain"),
            folder("more", [image("deep.jpg", "image/jpeg")]),
            image("9.jpg", "image/jpeg"),
            image(".hidden.jpg", "image/jpeg"),
          ]);
          const item = {kind: "file", webkitGetAsEntry: () => tree, getAsFile: () => null};
          const event = new Event("drop", {bubbles: true, cancelable: true});
          event.dataTransfer = {items: [item]};
          document.querySelector("#drop").dispatchEvent(event);
        }""",
        list(RED),
    )
    expect(page.locator(".card .name")).to_have_text(["9.jpg", "10.jpg", "deep.jpg"])
    classified(page, 3)


def test_what_is_no_image_is_said_so_when_dropped(page: Page) -> None:
    page.evaluate(
        """() => {
          const transfer = new DataTransfer();
          transfer.setData("text/plain", "https://example.com/image.jpg");
          const options = {dataTransfer: transfer, bubbles: true, cancelable: true};
          const event = new DragEvent("drop", options);
          document.body.dispatchEvent(event);
        }"""
    )
    expect(page.locator("#upload-problem")).to_contain_text("no picture in that")
    expect(page.locator(".card")).to_have_count(0)


def test_ten_images_at_once_are_classified_two_at_a_time(tab: Page, site: str) -> None:
    under_way: set[Request] = set()

    def begin(route: Route) -> None:
        under_way.add(route.request)
        route.continue_()

    def end(request: Request) -> int:
        number = len(under_way)
        under_way.discard(request)
        return number

    tab.route("**/v1/predict", begin)
    tab.goto(site)
    images = [file(f"{n}.jpg", encode(paint(COLOURS["green"], seed=n))) for n in range(10)]
    with heard(tab, "requestfinished", end) as numbers:
        choose(tab, *images)
        expect(tab.locator("#summary")).to_have_text("10 classified (10 green)")
    expect(tab.locator("#announcer")).to_contain_text("Done: 10 classified")
    expect(tab.locator("img.thumbnail:not([hidden])")).to_have_count(10)
    assert max(numbers) == 2


def test_broken_files_show_the_words_of_the_problem(page: Page) -> None:
    choose(page, file("page.jpg", b"<html>"), file("half.jpg", RED[:700]), file("nothing.jpg", b""))
    expect(page.locator("#summary")).to_have_text("3 not classified")
    expect(page.locator(".card .label")).to_have_text(["Not classified"] * 3)
    problems = page.locator(".findings > .problem")
    expect(problems.nth(0)).to_contain_text("This is text such as HTML or SVG")
    expect(problems.nth(1)).to_contain_text("ends early")
    expect(problems.nth(2)).to_have_text("The file is empty.")
    expect(page.locator(".bar")).to_have_count(0)
    expect(page.locator(".wrong:visible, .why:visible")).to_have_count(0)


def test_unsure_image_shows_what_is_answered_and_why(page: Page) -> None:
    choose(page, file("murky.jpg", murky(1)))
    expect(page.locator(".card .label")).to_have_text("green")
    expect(page.locator(".card .decision")).to_have_text(
        "Answered as neutral: no class reaches 60.0\u00a0%."
    )
    expect(page.locator(".chip").first).to_have_text("unsure")


def test_names_and_labels_are_text_and_never_markup(tab: Page, site: str) -> None:
    title = "Try the model · Picture sorter"
    classes = {EVIL: 0.4, **{f"class {n}": 0.1 for n in range(6)}}
    answer = {"label": EVIL, "decision": f"{EVIL}!", "probabilities": classes, "cached": True}
    image = {"format": "GIF", "width": 640, "height": 480, "frames": 24, "truncated": False}
    change_answer(tab, "**/v1/predict", {**answer, "flags": [EVIL], "image": image})
    tab.goto(site)
    hand_over(tab, "drop", f"{EVIL}.jpg", RED)
    expect(tab.locator(".card .label")).to_have_text(EVIL)
    expect(tab.locator(".card .name")).to_have_text(f"{EVIL}.jpg")
    expect(tab.locator(".card .decision")).to_contain_text(EVIL)
    expect(tab.locator(".chip")).to_have_text([EVIL, "24 frames looked at", "seen before"])
    expect(tab.locator(".bar")).to_have_count(5)  # the rest is summed up
    expect(tab.locator(".bar-rest")).to_have_text("2\u00a0other classes: 20.0\u00a0%")
    tab.locator(".wrong").click()
    expect(tab.locator(".choice-name").first).to_have_text(EVIL)
    expect(tab.locator(".card img")).to_have_count(2)  # thumbnail and explanation
    assert tab.title() == title


def test_model_is_named_and_named_anew_when_it_was_replaced(
    tab: Page, site: str, version_path: Path
) -> None:
    newer = {"name": "a-newer-one", "digest": "sha256:1"}
    change_answer(tab, "**/v1/predict", {"model": newer})
    tab.goto(site)
    expect(tab.locator("#model")).to_contain_text(
        f"{version_path.name} tells apart blue, green and red"
    )
    expect(tab.locator("#curl")).to_contain_text(f"{site}/v1/predict")
    change_answer(tab, "**/v1/model", newer)
    choose(tab, file("red.jpg", RED))
    expect(tab.locator("#model")).to_contain_text("a-newer-one tells apart")


def test_file_chooser_opens_from_the_keyboard(page: Page) -> None:
    with heard(page, "filechooser", lambda chooser: chooser) as choosers:
        page.locator("#choose").focus()
        for _ in range(100):
            page.keyboard.press("Enter")  # Chromium ignores it until the page has settled
            page.wait_for_timeout(50)
            if choosers:
                break
    choosers[0].set_files([file("red.jpg", RED)])
    expect(page.locator(".card .label")).to_have_text("red")


def test_page_lets_go_of_images_it_has_shown(page: Page) -> None:
    page.evaluate(
        """() => {
          window.held = new Set();
          const {createObjectURL, revokeObjectURL} = URL;
          URL.createObjectURL = (blob) => {
            const address = createObjectURL(blob);
            held.add(address);
            return address;
          };
          URL.revokeObjectURL = (address) => {
            held.delete(address);
            revokeObjectURL(address);
          };
        }"""
    )
    choose(page, *(file(f"{n}.jpg", encode(paint(COLOURS["blue"], seed=n))) for n in range(5)))
    expect(page.locator("img.thumbnail:not([hidden])")).to_have_count(5)
    page.wait_for_function("held.size === 0")
    photograph = encode(paint(COLOURS["red"], size=(1500, 1000)))
    choose(page, file("large.jpg", photograph))
    image = page.locator("img.thumbnail").first
    expect(image).to_be_visible()
    assert image.evaluate("image => [image.naturalWidth, image.naturalHeight]") == [480, 320]


def test_number_of_cards_is_bounded(page: Page) -> None:
    page.evaluate(
        """() => {
          const transfer = new DataTransfer();
          for (let n = 0; n < 1003; n += 1) transfer.items.add(new File([], `${n}.jpg`));
          const options = {dataTransfer: transfer, bubbles: true, cancelable: true};
          const event = new DragEvent("drop", options);
          document.querySelector("#drop").dispatchEvent(event);
        }"""
    )
    expect(page.locator("#summary")).to_have_text("1000 not classified")
    expect(page.locator("#upload-problem")).to_have_text(
        "Only the first 1,000\u00a0pictures of 1,003 were taken."
    )
    hand_over(page, "drop", "red.jpg", RED)
    expect(page.locator("#summary")).to_have_text("1 classified · 999 not classified")
    expect(page.locator(".card")).to_have_count(1000)
    expect(page.locator(".card .name").first).to_have_text("red.jpg")


def test_latest_image_comes_first_and_cards_can_be_removed(page: Page) -> None:
    for n in range(3):
        choose(page, file(f"{n}.jpg", RED))
    classified(page, 3)
    expect(page.locator(".card .name")).to_have_text(["2.jpg", "1.jpg", "0.jpg"])
    page.get_by_role("button", name="Remove 1.jpg").click()
    expect(page.locator(".card .name")).to_have_text(["2.jpg", "0.jpg"])
    expect(page.locator(".card").nth(1)).to_be_focused()
    page.get_by_role("button", name="Clear all").click()
    expect(page.locator(".card")).to_have_count(0)
    expect(page.locator("#summary")).to_have_text("")
    expect(page.locator("#choose")).to_be_focused()


@pytest.mark.parametrize("path", ["/", "/review"])  # /docs has a policy and a test of its own
def test_pages_ask_nobody_but_this_server_and_break_no_rule(
    tab: Page, site: str, path: str
) -> None:
    requests.post(f"{site}/v1/predict", data=murky(3), timeout=SECONDS).raise_for_status()
    with (
        heard(tab, "request", lambda request: request.url) as asked,
        heard(tab, "console", lambda message: message.text) as complaints,
        heard(tab, "pageerror", str) as errors,
    ):
        tab.goto(site + path)
        if path == "/":
            choose(tab, file("red.jpg", RED))
            classified(tab)
        tab.wait_for_load_state("networkidle")
    assert tab.locator("[aria-current=page]").get_attribute("href") == path
    links = tab.locator("nav[aria-label=Pages] a")
    assert [link.get_attribute("href") for link in links.all()] == ["/", "/review", "/docs"]
    assert complaints + errors == []
    assert all(url.startswith((site, f"blob:{site}", "data:")) for url in asked)
    assert tab.evaluate("document.querySelectorAll('[style], script:not([src])').length") == (
        tab.evaluate("document.querySelectorAll('.bar-fill[style]').length")
    )


def test_photograph_is_offered_where_fingers_point_and_nowhere_else(
    page: Page, phone: Page, site: str
) -> None:
    expect(page.get_by_text("Take a photo")).to_be_hidden()
    expect(page.get_by_text("Drop pictures")).to_be_visible()
    phone.goto(site)
    expect(phone.get_by_text("Take a photo")).to_be_visible()
    expect(phone.get_by_text("Drop pictures")).to_be_hidden()
    assert phone.locator("#photograph").get_attribute("capture") == "environment"
    phone.set_input_files("#photograph", [file("image.jpg", RED)])
    expect(phone.locator(".card .label")).to_have_text("red")


def test_phone_width_needs_no_sideways_scrolling(phone: Page, site: str) -> None:
    probabilities = {"w" * 60: 0.6, "x y " * 20: 0.4}
    change_answer(phone, "**/v1/predict", {"label": "w" * 60, "probabilities": probabilities})
    phone.goto(site)
    hand_over(phone, "drop", "x" * 200 + ".jpg", RED)
    expect(phone.locator(".card .label")).to_have_text("w" * 60)
    phone.locator(".wrong").click()
    expect(phone.locator(".choices")).to_be_visible()
    for width in (390, 320):
        phone.set_viewport_size({"width": width, "height": 844})
        assert sideways_pixels(phone) <= 0
        assert cut_texts(phone) == []


def test_words_can_be_read_in_light_and_dark(page: Page) -> None:
    choose(page, file("murky.jpg", murky(2)), file("page.jpg", b"<html>"))
    expect(page.locator("#summary")).to_have_text("1 classified · 1 not classified")
    page.locator(".wrong:visible").click()
    page.get_by_role("button", name="blue").click()
    expect(page.locator(".corrected:visible")).to_have_count(1)
    page.locator(".wrong:visible").click()
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme, reduced_motion="reduce")  # at once, without fading
        ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
        is_dark = int(re.findall("[0-9]+", ground)[0]) < 128
        assert is_dark == (scheme == "dark")
        assert faint_texts(page) == []
        assert cut_texts(page) == []


def test_nothing_moves_for_those_who_want_it_still(page: Page) -> None:
    styles = "[...document.querySelectorAll('*')].map((one) => getComputedStyle(one))"
    moving = f"{styles}.filter((style) => parseFloat(style.transitionDuration) > 0).length"
    scrolling = "getComputedStyle(document.documentElement).scrollBehavior"
    assert page.evaluate(moving) > 0
    assert page.evaluate(scrolling) == "smooth"
    page.emulate_media(reduced_motion="reduce")
    assert page.evaluate(moving) == 0
    assert page.evaluate(scrolling) == "auto"
