"""The page for trying the model, driven in a real Chromium."""

import re
from pathlib import Path

import pytest
import requests
from browsing import (
    RED,
    change_answer,
    choose,
    cut_texts,
    faint_texts,
    file,
    hand_over,
    heard,
    murky,
    refuse,
    sideways_pixels,
)
from painted import COLOURS, encode, paint
from playwright.sync_api import Page, Request, Route, expect

EVIL = "<img src=x onerror=document.title='broken-into'>"
KEY = "s3cret-key"
SECONDS = 20


@pytest.fixture
def page(tab: Page, site: str) -> Page:
    """Give the page, freshly loaded."""
    tab.goto(site)
    return tab


def judged(page: Page, number: int = 1) -> None:
    """Wait until so many pictures are judged."""
    expect(page.locator('.card[data-state="judged"]')).to_have_count(number)


def test_chosen_pictures_show_label_and_bars_in_the_order_chosen(page: Page) -> None:
    choose(page, *(file(f"{name}.jpg", encode(paint(COLOURS[name]))) for name in COLOURS))
    expect(page.locator("#summary")).to_have_text("3 judged (1 blue, 1 green, 1 red)")
    expect(page.locator(".card .label")).to_have_text(list(COLOURS))
    last = page.locator(".card").last
    expect(last.locator(".bar-name")).to_have_text(["red", "green", "blue"])
    assert last.locator(".bar-value").first.inner_text().endswith("\u00a0%")
    widths = [fill.bounding_box()["width"] for fill in last.locator(".bar-fill").all()]
    assert widths == sorted(widths, reverse=True)
    assert widths[0] > 4 * widths[1] > 0
    expect(last.locator(".decision")).to_be_hidden()
    expect(last.locator(".timing")).to_contain_text("JPEG 64×48")
    expect(last.locator(".timing")).to_contain_text("judged in")
    expect(last.locator("img.thumbnail")).to_be_visible()
    assert last.locator("img.thumbnail").evaluate("image => image.naturalWidth") == 64


def test_later_pictures_come_before_earlier_ones(page: Page) -> None:
    for name in COLOURS:
        choose(page, file(f"{name}.jpg", encode(paint(COLOURS[name]))))
    expect(page.locator(".card .name")).to_have_text(["red.jpg", "green.jpg", "blue.jpg"])
    judged(page, 3)


@pytest.mark.parametrize("event", ["drop", "paste"])
def test_dropped_or_pasted_picture_is_judged(page: Page, event: str) -> None:
    hand_over(page, event, "red.jpg", RED)
    expect(page.locator(".card .label")).to_have_text("red")
    expect(page.locator(".card .name")).to_have_text("red.jpg")


def test_dropped_folder_gives_its_pictures_in_order(page: Page) -> None:
    page.evaluate(
        """(bytes) => {
          const picture = (name, type) => ({name, isDirectory: false, file: (done) =>
            done(new File([new Uint8Array(bytes)], name, {type}))});
          const folder = (name, entries) => {
            const left = [entries, []];
            return {name, isDirectory: true, createReader: () =>
              ({readEntries: (done) => done(left.shift())})};
          };
          const tree = folder("all", [
            picture("10.jpg", "image/jpeg"),
            picture("notes.txt", "text/plain"),
            folder("more", [picture("deep.jpg", "image/jpeg")]),
            picture("9.jpg", "image/jpeg"),
            picture(".hidden.jpg", "image/jpeg"),
          ]);
          const item = {kind: "file", webkitGetAsEntry: () => tree, getAsFile: () => null};
          const event = new Event("drop", {bubbles: true, cancelable: true});
          event.dataTransfer = {items: [item]};
          document.querySelector("#drop").dispatchEvent(event);
        }""",
        list(RED),
    )
    expect(page.locator(".card .name")).to_have_text(["9.jpg", "10.jpg", "deep.jpg"])
    judged(page, 3)


def test_what_is_no_picture_is_said_so_when_dropped(page: Page) -> None:
    page.evaluate(
        """() => {
          const transfer = new DataTransfer();
          transfer.setData("text/plain", "https://example.com/picture.jpg");
          const options = {dataTransfer: transfer, bubbles: true, cancelable: true};
          const event = new DragEvent("drop", options);
          document.body.dispatchEvent(event);
        }"""
    )
    expect(page.locator("#intake-problem")).to_contain_text("no picture in that")
    expect(page.locator(".card")).to_have_count(0)


def test_ten_pictures_at_once_are_judged_two_at_a_time(tab: Page, site: str) -> None:
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
    pictures = [file(f"{n}.jpg", encode(paint(COLOURS["green"], seed=n))) for n in range(10)]
    with heard(tab, "requestfinished", end) as numbers:
        choose(tab, *pictures)
        expect(tab.locator("#summary")).to_have_text("10 judged (10 green)")
    expect(tab.locator("#announcer")).to_contain_text("Done: 10 judged")
    expect(tab.locator("img.thumbnail:not([hidden])")).to_have_count(10)
    assert max(numbers) == 2


def test_broken_files_show_the_words_of_the_problem(page: Page) -> None:
    choose(page, file("page.jpg", b"<html>"), file("half.jpg", RED[:700]), file("nothing.jpg", b""))
    expect(page.locator("#summary")).to_have_text("3 not judged")
    expect(page.locator(".card .label")).to_have_text(["Not judged"] * 3)
    problems = page.locator(".findings > .problem")
    expect(problems.nth(0)).to_contain_text("This is text such as HTML or SVG")
    expect(problems.nth(1)).to_contain_text("ends early")
    expect(problems.nth(2)).to_have_text("The file is empty.")
    expect(page.locator(".bar")).to_have_count(0)
    expect(page.locator(".wrong:visible, .why:visible")).to_have_count(0)


def test_unsure_picture_shows_what_is_answered_and_why(page: Page) -> None:
    choose(page, file("murky.jpg", murky(1)))
    expect(page.locator(".card .label")).to_have_text("green")
    expect(page.locator(".card .decision")).to_have_text(
        "Answered as neutral: no class reaches 60.0\u00a0%."
    )
    expect(page.locator(".chip").first).to_have_text("unsure")


def test_flags_of_an_answer_are_shown(tab: Page, site: str) -> None:
    image = {"format": "GIF", "width": 640, "height": 480, "frames": 24, "truncated": False}
    change_answer(tab, "**/v1/predict", {"cached": True, "image": image, "flags": []})
    tab.goto(site)
    choose(tab, file("moving.gif", RED))
    expect(tab.locator(".chip")).to_have_text(["24 frames looked at", "seen before"])


def test_names_and_labels_are_text_and_never_markup(tab: Page, site: str) -> None:
    title = "Try the model · Picture sorter"
    answer = {"label": EVIL, "decision": f"{EVIL}!", "probabilities": {EVIL: 0.9, "x": 0.1}}
    change_answer(tab, "**/v1/predict", {**answer, "flags": [EVIL]})
    tab.goto(site)
    hand_over(tab, "drop", f"{EVIL}.jpg", RED)
    expect(tab.locator(".card .label")).to_have_text(EVIL)
    expect(tab.locator(".card .name")).to_have_text(f"{EVIL}.jpg")
    expect(tab.locator(".card .decision")).to_contain_text(EVIL)
    expect(tab.locator(".chip").first).to_have_text(EVIL)
    tab.locator(".wrong").click()
    expect(tab.locator(".choice-name").first).to_have_text(EVIL)
    expect(tab.locator(".card img")).to_have_count(2)  # thumbnail and explanation
    assert tab.title() == title


def test_many_classes_are_summed_up(tab: Page, site: str) -> None:
    probabilities = {f"class {n}": 0.1 for n in range(10)}
    change_answer(tab, "**/v1/predict", {"label": "class 0", "probabilities": probabilities})
    tab.goto(site)
    choose(tab, file("red.jpg", RED))
    expect(tab.locator(".bar")).to_have_count(5)
    expect(tab.locator(".bar-rest")).to_have_text("5\u00a0other classes: 50.0\u00a0%")


def test_model_is_named_and_the_command_to_copy_has_this_address(
    page: Page, site: str, version_path: Path
) -> None:
    expect(page.locator("#model")).to_contain_text(
        f"{version_path.name} tells apart blue, green and red"
    )
    expect(page.locator("#curl")).to_contain_text(f"{site}/v1/predict")


def test_model_that_was_replaced_is_named_anew(tab: Page, site: str) -> None:
    newer = {"name": "a-newer-one", "digest": "sha256:1"}
    change_answer(tab, "**/v1/predict", {"model": newer})
    tab.goto(site)
    expect(tab.locator("#model")).to_contain_text("tells apart")
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


def correction_of(site: str, data: bytes) -> str | None:
    """Give the class that the service holds for a picture, by saying the same and undoing it."""
    sha256 = requests.post(f"{site}/v1/predict", data=data, timeout=SECONDS).json()["image"][
        "sha256"
    ]
    wanted = {"sha256": sha256, "label": "blue"}
    told = requests.post(f"{site}/v1/feedback", json=wanted, timeout=SECONDS).json()
    if told["previous"] != "blue":  # the same again would change nothing, and leave none to undo
        requests.delete(f"{site}/v1/feedback/{sha256}", timeout=SECONDS).raise_for_status()
    return told["previous"]


def test_wrong_answer_is_corrected_changed_and_undone(page: Page, site: str) -> None:
    data = encode(paint(COLOURS["red"], seed=101))
    choose(page, file("red.jpg", data))
    judged(page)
    card = page.locator(".card")
    card.locator(".wrong").click()
    expect(card.locator(".choice-name")).to_have_text(["blue", "green", "red", "none of these"])
    expect(card.locator(".choice").first).to_be_focused()
    card.get_by_role("button", name="green").click()
    expect(card.locator(".corrected")).to_have_text("Corrected to green")
    expect(page.locator("#announcer")).to_contain_text("red.jpg: Corrected to green")
    expect(card.locator(".correction")).to_be_hidden()
    assert correction_of(site, data) == "green"
    card.get_by_role("button", name="Change").click()
    card.get_by_role("button", name="none of these").click()
    expect(card.locator(".corrected")).to_have_text("Marked as none of these")
    card.get_by_role("button", name="Undo").click()
    expect(card.locator(".corrected")).to_have_text("Corrected to green")
    card.get_by_role("button", name="Undo").click()
    expect(card.locator(".corrected")).to_be_hidden()
    expect(card.get_by_role("button", name="Wrong?")).to_be_visible()
    assert correction_of(site, data) is None


def test_cards_are_worked_on_by_keyboard_alone(page: Page, site: str) -> None:
    data = [encode(paint(COLOURS["red"], seed=seed)) for seed in (111, 112, 113)]
    choose(page, *(file(f"{number}.jpg", one) for number, one in enumerate(data)))
    judged(page, 3)
    cards = page.locator(".card")
    for key, number in (("j", 0), ("ArrowDown", 1), ("j", 2), ("j", 2), ("k", 1), ("ArrowUp", 0)):
        page.keyboard.press(key)
        expect(cards.nth(number)).to_be_focused()
    page.keyboard.press("c")
    page.keyboard.press("2")
    expect(cards.nth(0).locator(".corrected")).to_have_text("Corrected to green")
    expect(cards.nth(0)).to_be_focused()
    page.keyboard.press("j")
    page.keyboard.press("c")
    page.keyboard.press("x")
    expect(cards.nth(1).locator(".corrected")).to_have_text("Marked as none of these")
    page.keyboard.press("j")
    page.keyboard.press("u")  # no correction on this card: the latest one is undone
    expect(cards.nth(1).locator(".corrected")).to_be_hidden()
    assert correction_of(site, data[0]) == "green"
    assert correction_of(site, data[1]) is None
    page.keyboard.press("c")
    expect(cards.nth(1).locator(".correction")).to_be_visible()
    page.keyboard.press("Escape")
    expect(cards.nth(1).locator(".correction")).to_be_hidden()


def test_picture_that_is_not_held_any_more_is_sent_with_its_correction(
    tab: Page, site: str
) -> None:
    def forget(route: Route) -> None:
        if route.request.headers["content-type"] == "application/json":
            refuse(route, 404, "unknown-picture", "The picture is not held any more.")
        else:
            route.continue_()

    tab.route("**/v1/feedback", forget)
    tab.goto(site)
    data = encode(paint(COLOURS["red"], seed=121))
    choose(tab, file("red.jpg", data))
    judged(tab)
    tab.locator(".wrong").click()
    tab.get_by_role("button", name="green").click()
    expect(tab.locator(".corrected")).to_have_text("Corrected to green")
    assert correction_of(site, data) == "green"


def test_correction_that_fails_says_why_and_stays_open(tab: Page, site: str) -> None:
    words = "The disk is full: nothing was stored."
    tab.route("**/v1/feedback", lambda route: refuse(route, 503, "feedback-unavailable", words))
    tab.goto(site)
    choose(tab, file("red.jpg", RED))
    judged(tab)
    tab.locator(".wrong").click()
    tab.get_by_role("button", name="green").click()
    expect(tab.locator(".correction .problem")).to_have_text(words)
    expect(tab.get_by_role("button", name="green")).to_be_enabled()
    expect(tab.locator(".corrected")).to_be_hidden()


def test_server_that_takes_no_corrections_says_so(tab: Page, site: str) -> None:
    words = "The requested URL was not found on the server."
    tab.route("**/v1/feedback", lambda route: refuse(route, 404, "not-found", words))
    tab.goto(site)
    choose(tab, file("red.jpg", RED))
    judged(tab)
    tab.locator(".wrong").click()
    tab.get_by_role("button", name="green").click()
    expect(tab.locator(".correction .problem")).to_have_text("This server does not offer that.")


def test_explanation_is_shown_and_hidden_again(tab: Page, site: str) -> None:
    headers = {"Content-Type": "image/png", "X-Label": "caf%C3%A9"}
    picture = encode(paint(COLOURS["red"]), "PNG")
    tab.route("**/v1/explain", lambda route: route.fulfill(headers=headers, body=picture))
    tab.goto(site)
    choose(tab, file("red.jpg", RED))
    judged(tab)
    tab.get_by_role("button", name="Why?").click()
    figure = tab.locator(".explanation")
    expect(figure.locator("figcaption")).to_contain_text("“café”")
    expect(figure.locator("img")).to_be_visible()
    assert figure.locator("img").evaluate("image => image.naturalWidth") == 64
    tab.get_by_role("button", name="Hide why").click()
    expect(figure).to_be_hidden()


def test_explanation_that_cannot_be_had_says_why(page: Page) -> None:
    choose(page, file("red.jpg", RED))
    judged(page)
    page.get_by_role("button", name="Why?").click()
    expect(page.locator(".findings > .problem")).to_contain_text("Keras")
    expect(page.get_by_role("button", name="Why?")).to_be_enabled()
    expect(page.locator(".explanation")).to_be_hidden()


def test_busy_server_is_asked_again_after_the_time_it_names(tab: Page, site: str) -> None:
    refusals = [(429, "rate-limited", "Too fast."), (503, "overloaded", "The server is full.")]

    def busy_at_first(route: Route) -> None:
        if refusals:
            refuse(route, *refusals.pop(0), {"Retry-After": "1"})
        else:
            route.continue_()

    tab.route("**/v1/predict", busy_at_first)
    tab.goto(site)
    choose(tab, file("red.jpg", RED))
    label = tab.locator(".card .label")
    expect(label).to_have_text("Too fast. Trying again …")
    expect(label).to_have_text("The server is full. Trying again …")
    expect(label).to_have_text("red")


def test_refusals_are_told_in_the_servers_words_and_may_be_tried_again(
    tab: Page, site: str
) -> None:
    words = {
        403: "This key may not do that.",
        413: "The picture has more than 10,485,760 bytes.",
        415: "This is no accepted picture format.",
        422: "The picture has too many pixels.",
        504: "The answer took too long.",
    }
    left = list(words)
    tab.route("**/v1/predict", lambda route: refuse(route, left[0], "slug", words[left.pop(0)]))
    tab.goto(site)
    choose(tab, *(file(f"{status}.jpg", RED) for status in words))
    expect(tab.locator("#summary")).to_have_text("5 not judged")
    assert sorted(tab.locator(".findings > .problem").all_inner_texts()) == sorted(words.values())
    tab.unroute("**/v1/predict")
    tab.get_by_role("button", name="Try again").first.click()
    judged(tab)
    expect(tab.locator(".card .label").first).to_have_text("red")
    expect(tab.locator(".findings > .problem").first).to_be_hidden()


def test_fault_of_the_server_is_told_with_its_id(tab: Page, site: str) -> None:
    tab.route(
        "**/v1/predict",
        lambda route: refuse(route, 500, "internal", "The server failed", {"X-Request-Id": "id-7"}),
    )
    tab.goto(site)
    choose(tab, file("red.jpg", RED))
    expect(tab.locator(".findings > .problem")).to_contain_text("under request id-7")


def test_answer_of_a_proxy_is_told_in_plain_words(tab: Page, site: str) -> None:
    tab.route("**/v1/predict", lambda route: route.fulfill(status=502, body="<h1>Bad Gateway"))
    tab.goto(site)
    choose(tab, file("red.jpg", RED))
    expect(tab.locator(".findings > .problem")).to_have_text(
        "Something between here and the server failed."
    )


def test_absent_server_is_waited_for(page: Page) -> None:
    expect(page.locator("#model")).to_contain_text("tells apart")
    page.context.set_offline(True)
    choose(page, file("red.jpg", RED))
    expect(page.locator("#notice")).to_contain_text("The server does not answer")
    expect(page.locator("#summary")).to_have_text("1 to go")
    page.context.set_offline(False)
    expect(page.locator(".card .label")).to_have_text("red")
    expect(page.locator("#notice")).to_be_hidden()


def guard(page: Page) -> list[str | None]:
    """Have the service ask for `KEY`; give a list of the keys that are sent."""
    sent: list[str | None] = []

    def check(route: Route) -> None:
        sent.append(route.request.headers.get("authorization"))
        if sent[-1] == f"Bearer {KEY}":
            route.continue_()
        else:
            headers = {"WWW-Authenticate": "Bearer"}
            refuse(route, 401, "unauthorized", "A key is needed.", headers)

    page.route("**/v1/**", check)
    return sent


def test_key_is_asked_for_once_and_kept_for_the_tab(tab: Page, site: str) -> None:
    sent = guard(tab)
    tab.goto(site)
    dialog = tab.locator("#key-dialog")
    expect(dialog).to_be_visible()
    expect(tab.locator("#key")).to_be_focused()
    tab.keyboard.type("wörng")
    tab.keyboard.press("Enter")
    expect(tab.locator("#key-problem")).to_be_visible()
    tab.locator("#key").fill("wrong")
    tab.keyboard.press("Enter")
    expect(tab.locator("#key-words")).to_have_text("It did not accept the last one.")
    tab.locator("#key").fill(KEY)
    tab.get_by_role("button", name="Use this key").click()
    expect(dialog).to_be_hidden()
    expect(tab.locator("#model")).to_contain_text("tells apart")
    choose(tab, file("red.jpg", RED))
    judged(tab)
    tab.reload()
    expect(tab.locator("#model")).to_contain_text("tells apart")
    expect(dialog).to_be_hidden()
    assert sent == [None, "Bearer wrong", *[f"Bearer {KEY}"] * 3]
    assert tab.evaluate("localStorage.length") == 0
    assert tab.evaluate("Object.values(sessionStorage)") == [KEY]


def test_declined_key_is_not_asked_for_again_until_somebody_wants_something(
    tab: Page, site: str
) -> None:
    guard(tab)
    tab.goto(site)
    dialog = tab.locator("#key-dialog")
    tab.get_by_role("button", name="Not now").click()
    expect(tab.locator("#model")).to_have_text("The server asks for a key, and none was given.")
    choose(tab, *(file(f"{number}.jpg", RED) for number in range(3)))
    expect(dialog).to_be_visible()
    tab.keyboard.press("Escape")
    expect(tab.locator("#summary")).to_have_text("3 not judged")
    expect(dialog).to_be_hidden()
    tab.get_by_role("button", name="Try again").first.click()
    tab.locator("#key").fill(KEY)
    tab.keyboard.press("Enter")
    judged(tab)
    tab.get_by_role("button", name="Key", exact=True).click()
    tab.get_by_role("button", name="Forget it").click()
    assert tab.evaluate("sessionStorage.length") == 0


def test_page_lets_go_of_pictures_it_has_shown(page: Page) -> None:
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
    expect(page.locator("#summary")).to_have_text("1000 not judged")
    expect(page.locator("#intake-problem")).to_have_text(
        "Only the first 1,000\u00a0pictures of 1,003 were taken."
    )
    hand_over(page, "drop", "red.jpg", RED)
    expect(page.locator("#summary")).to_have_text("1 judged · 999 not judged")
    expect(page.locator(".card")).to_have_count(1000)
    expect(page.locator(".card .name").first).to_have_text("red.jpg")


def test_cards_can_be_removed_one_by_one_and_all_together(page: Page) -> None:
    choose(page, *(file(f"{n}.jpg", RED) for n in range(3)))
    judged(page, 3)
    page.get_by_role("button", name="Remove 1.jpg").click()
    expect(page.locator(".card .name")).to_have_text(["0.jpg", "2.jpg"])
    expect(page.locator(".card").nth(1)).to_be_focused()
    page.get_by_role("button", name="Clear all").click()
    expect(page.locator(".card")).to_have_count(0)
    expect(page.locator("#summary")).to_have_text("")
    expect(page.locator("#choose")).to_be_focused()


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
    expect(page.locator("#summary")).to_have_text("1 judged · 1 not judged")
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


@pytest.mark.parametrize("path", ["/", "/review", "/docs"])
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
            judged(tab)
        tab.wait_for_load_state("networkidle")
    assert tab.locator("[aria-current=page]").get_attribute("href") == path
    links = tab.locator("nav[aria-label=Pages] a")
    assert [link.get_attribute("href") for link in links.all()] == ["/", "/review", "/docs"]
    assert complaints + errors == []
    assert all(url.startswith((site, f"blob:{site}", "data:")) for url in asked)
    assert tab.evaluate("document.querySelectorAll('[style], script:not([src])').length") == (
        tab.evaluate("document.querySelectorAll('.bar-fill[style]').length")
    )
