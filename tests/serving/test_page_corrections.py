"""Corrections and explanations on the page, in a real Chromium."""

import pytest
import requests
from browsing import RED, choose, classified, file, refuse
from painted import COLOURS, encode, paint
from playwright.sync_api import Page, Route, expect
from running import SECONDS


def correction_of(site: str, data: bytes) -> str | None:
    """Return the class that the service holds for an image, by saying the same and undoing it."""
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
    classified(page)
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
    classified(page, 3)
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


def test_image_that_is_not_held_any_more_is_sent_with_its_correction(tab: Page, site: str) -> None:
    def forget(route: Route) -> None:
        if route.request.headers["content-type"] == "application/json":
            refuse(route, 404, "unknown-picture", "The image is not held any more.")
        else:
            route.continue_()

    tab.route("**/v1/feedback", forget)
    tab.goto(site)
    data = encode(paint(COLOURS["red"], seed=121))
    choose(tab, file("red.jpg", data))
    classified(tab)
    tab.locator(".wrong").click()
    tab.get_by_role("button", name="green").click()
    expect(tab.locator(".corrected")).to_have_text("Corrected to green")
    assert correction_of(site, data) == "green"


NOT_FOUND = "The requested URL was not found on the server."


@pytest.mark.parametrize(
    ("status", "slug", "detail", "shown"),
    [
        (503, "feedback-unavailable", "The disk is full.", "The disk is full."),
        (404, "not-found", NOT_FOUND, "This server does not offer that."),
    ],
)
def test_correction_that_fails_says_why_and_stays_open(
    tab: Page, site: str, status: int, slug: str, detail: str, shown: str
) -> None:
    tab.route("**/v1/feedback", lambda route: refuse(route, status, slug, detail))
    tab.goto(site)
    choose(tab, file("red.jpg", RED))
    classified(tab)
    tab.locator(".wrong").click()
    tab.get_by_role("button", name="green").click()
    expect(tab.locator(".correction .problem")).to_have_text(shown)
    expect(tab.get_by_role("button", name="green")).to_be_enabled()
    expect(tab.locator(".corrected")).to_be_hidden()


def test_explanation_is_shown_and_hidden_again(tab: Page, site: str) -> None:
    headers = {"Content-Type": "image/png", "X-Label": "caf%C3%A9"}
    image = encode(paint(COLOURS["red"]), "PNG")
    tab.route("**/v1/explain", lambda route: route.fulfill(headers=headers, body=image))
    tab.goto(site)
    choose(tab, file("red.jpg", RED))
    classified(tab)
    tab.get_by_role("button", name="Why?").click()
    figure = tab.locator(".explanation")
    expect(figure.locator("figcaption")).to_contain_text("“café”")
    expect(figure.locator("img")).to_be_visible()
    assert figure.locator("img").evaluate("image => image.naturalWidth") == 64
    tab.get_by_role("button", name="Hide why").click()
    expect(figure).to_be_hidden()


def test_explanation_that_cannot_be_had_says_why(page: Page) -> None:
    choose(page, file("red.jpg", RED))
    classified(page)
    page.get_by_role("button", name="Why?").click()
    expect(page.locator(".findings > .problem")).to_contain_text("Keras")
    expect(page.get_by_role("button", name="Why?")).to_be_enabled()
    expect(page.locator(".explanation")).to_be_hidden()
