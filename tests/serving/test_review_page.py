"""The page for reviewing, driven in a real Chromium."""

import itertools
from typing import Any

import pytest
import requests
from browsing import (
    change_answer,
    cut_texts,
    faint_texts,
    heard,
    murky,
    refuse,
    sideways_pixels,
)
from painted import COLOURS, encode, paint
from playwright.sync_api import Page, Route, expect

SECONDS = 20
SEEDS = itertools.count(1000)  # no two tests send the same image


def review(site: str) -> dict[str, Any]:
    """Return what waits to be reviewed."""
    answer = requests.get(f"{site}/v1/review?limit=100", timeout=SECONDS)
    answer.raise_for_status()
    return answer.json()


def unsure(site: str) -> list[dict[str, Any]]:
    """Return the images to review first."""
    return [image for image in review(site)["images"] if image["reason"] == "uncertain"]


def leave(site: str, number: int) -> None:
    """Reject images until at most `number` wait; the service limits how many in a minute."""
    for image in unsure(site)[number:]:
        wanted = {"sha256": image["sha256"], "reject": True}
        requests.post(f"{site}/v1/feedback", json=wanted, timeout=SECONDS).raise_for_status()


@pytest.fixture
def five(site: str) -> list[str]:
    """Have five uncertain images wait; return their SHA-256s in order."""
    leave(site, 5)
    for _ in range(5 - len(unsure(site))):
        data = murky(next(SEEDS))
        answer = requests.post(f"{site}/v1/predict", data=data, timeout=SECONDS)
        assert answer.json()["flags"] == ["unsure"]
    images = unsure(site)
    assert len(images) == review(site)["waiting"] == 5
    return [image["sha256"] for image in images]


@pytest.fixture
def page(tab: Page, site: str, five: list[str]) -> Page:
    """Return the page, with five images to review."""
    tab.goto(f"{site}/review")
    seen(tab, waiting=5)
    return tab


def seen(page: Page, waiting: int) -> None:
    """Wait until an image is shown and `waiting` images wait."""
    expect(page.locator("#progress")).to_contain_text(f"{waiting} waiting")
    expect(page.locator("#picture")).to_be_visible()


def undone(site: str, sha256: str) -> dict[str, Any]:
    """Undo a correction and return the answer."""
    answer = requests.delete(f"{site}/v1/feedback/{sha256}", timeout=SECONDS)
    answer.raise_for_status()
    return answer.json()


def test_five_images_are_reviewed_by_keyboard_alone(page: Page, site: str, five: list[str]) -> None:
    before = review(site)["corrected"]
    expect(page.locator("#reason")).to_contain_text("The model is unsure: green with")
    expect(page.locator("#reason")).to_contain_text("answered as neutral")
    expect(page.locator("#audit")).to_be_hidden()
    expect(page.locator(".row .bar-name")).to_have_text(["blue", "green", "red"])
    assert page.locator("#picture").evaluate("image => image.naturalWidth") == 64
    for number, key in enumerate("123x1", start=1):
        seen(page, waiting=6 - number)
        page.keyboard.press(key)
    expect(page.locator("#empty-title")).to_have_text("All done")
    expect(page.locator("#progress")).to_have_text(f"0 waiting · {before + 5} corrected")
    assert review(site)["waiting"] == 0
    previous = [undone(site, sha256)["previous"] for sha256 in five]
    assert previous == ["blue", "green", "red", None, "blue"]


def test_undo_brings_the_last_image_back(page: Page, site: str, five: list[str]) -> None:
    first = page.locator("#picture").get_attribute("src")
    expect(page.get_by_role("button", name="Undo")).to_be_disabled()
    page.keyboard.press("1")
    seen(page, waiting=4)
    assert page.locator("#picture").get_attribute("src") != first
    expect(page.locator("#last")).to_have_text("Last one: blue.")
    page.keyboard.press("u")
    seen(page, waiting=5)
    assert five[0] in [image["sha256"] for image in unsure(site)]
    page.keyboard.press("3")
    seen(page, waiting=4)
    assert undone(site, five[0])["previous"] == "red"


def test_skipped_images_come_back_and_buttons_do_what_the_keys_do(
    page: Page, site: str, five: list[str]
) -> None:
    for _ in range(5):
        expect(page.locator("#picture")).to_be_visible()
        page.keyboard.press("s")
    expect(page.locator("#empty-title")).to_have_text("Only skipped pictures are left")
    page.keyboard.press("u")
    seen(page, waiting=5)
    page.get_by_role("button", name="Skip").click()
    expect(page.locator("#last")).to_have_text("Last one: skipped.")
    page.get_by_role("button", name="Show them again").click()
    seen(page, waiting=5)
    page.get_by_role("button", name="red").click()
    seen(page, waiting=4)
    page.get_by_role("button", name="None of these").click()
    seen(page, waiting=3)
    assert {undone(site, sha256)["previous"] for sha256 in five[:2]} == {"red", None}


def test_key_counts_once_and_only_for_an_image_that_is_shown(
    tab: Page, site: str, five: list[str]
) -> None:
    held_back: list[Route] = []
    tab.route("**/image", lambda route: held_back.append(route))
    tab.goto(f"{site}/review")
    expect(tab.locator("#picture-words")).to_have_text("Fetching the picture …")
    tab.keyboard.press("1")
    tab.keyboard.press("x")
    tab.wait_for_timeout(200)
    assert review(site)["waiting"] == len(five)
    for route in held_back:
        route.continue_()
    expect(tab.locator("#picture")).to_be_visible()
    tab.keyboard.down("1")
    expect(tab.locator("#last")).to_have_text("Last one: blue.")
    seen(tab, waiting=4)
    for _ in range(5):
        tab.keyboard.down("1")
    tab.wait_for_timeout(200)
    tab.keyboard.up("1")
    assert review(site)["waiting"] == 4


def test_next_images_are_there_before_their_turn(page: Page, five: list[str]) -> None:
    names = "performance.getEntriesByType('resource').map((one) => one.name)"
    images = f"{names}.filter((name) => name.endsWith('/image'))"
    page.wait_for_function(f"{images}.length > 3")
    assert {name.split("/")[-2] for name in page.evaluate(images)} == set(five[:4])


def test_refusals_are_told_and_what_failed_can_be_done_again(
    tab: Page, site: str, five: list[str]
) -> None:
    words = "This server keeps no images."
    tab.route("**/v1/review?*", lambda route: refuse(route, 503, "feedback-unavailable", words))
    tab.goto(f"{site}/review")
    expect(tab.locator("#trouble")).to_have_text(words)
    expect(tab.locator("#empty-title")).to_have_text("No pictures could be fetched")
    expect(tab.locator("#loading")).to_be_hidden()
    tab.unroute("**/v1/review?*")
    full = "The disk is full: nothing was stored."
    tab.route("**/v1/feedback", lambda route: refuse(route, 503, "feedback-unavailable", full))
    tab.goto(f"{site}/review")
    seen(tab, waiting=len(five))
    tab.keyboard.press("1")
    expect(tab.locator("#trouble")).to_have_text(full)
    seen(tab, waiting=5)
    tab.unroute("**/v1/feedback")
    tab.keyboard.press("1")
    seen(tab, waiting=4)
    expect(tab.locator("#trouble")).to_be_hidden()
    assert review(site)["waiting"] == 4


def test_image_that_is_gone_can_be_passed_over(tab: Page, site: str, five: list[str]) -> None:
    words = "The image is not held any more."
    address = f"**/v1/review/{five[0]}/image"
    tab.route(address, lambda route: refuse(route, 404, "unknown-picture", words))
    tab.goto(f"{site}/review")
    expect(tab.locator("#picture-words")).to_contain_text(f"{words} Press s to go on.")
    tab.keyboard.press("s")
    expect(tab.locator("#picture")).to_be_visible()


def test_an_empty_queue_is_explained_and_shows_what_the_model_was_sure_of(
    tab: Page, site: str
) -> None:
    leave(site, 0)
    data = encode(paint(COLOURS["blue"], seed=next(SEEDS)))
    requests.post(f"{site}/v1/predict", data=data, timeout=SECONDS)
    tab.goto(f"{site}/review")
    expect(tab.locator("#empty-title")).to_have_text("Nothing to review")
    expect(tab.locator("#empty-words")).to_contain_text("wait here until somebody looks")
    expect(tab.locator("#open-picture")).to_be_hidden()
    requests.post(f"{site}/v1/predict", data=murky(next(SEEDS)), timeout=SECONDS)
    tab.get_by_role("button", name="Look again").click()
    seen(tab, waiting=1)
    leave(site, 0)
    tab.goto(f"{site}/review")
    tab.get_by_role("button", name="Show what it was sure of").click()
    seen(tab, waiting=0)
    expect(tab.locator("#reason")).to_contain_text("The model was sure:")


def test_estimate_of_what_the_filter_misses_is_shown(tab: Page, site: str) -> None:
    seen_some = {"kept": 140, "reviewed": 100, "missed": 2, "missed_share": 0.02}
    seen_none = {"kept": 3, "reviewed": 0, "missed": 0, "missed_share": None}
    some = "Of 100\u00a0dropped pictures looked at, 2 were wrong: 2.0\u00a0% (0.5 to 7.0)."
    none = "3\u00a0dropped pictures kept at random; none has been looked at yet."
    for audit, interval, words in ((seen_some, [0.005, 0.07], some), (seen_none, None, none)):
        told = {"share": 0.01, "interval": interval, **audit}
        change_answer(tab, "**/v1/review?*", {"audit": told})
        tab.goto(f"{site}/review")
        expect(tab.locator("#audit-words")).to_have_text(words)


def test_tenth_class_and_those_beyond_have_letters(tab: Page, site: str, five: list[str]) -> None:
    evil = "<img src=x onerror=document.title='broken-into'>"
    classes = [evil, *(f"class {number}" for number in range(1, 12))]
    change_answer(tab, "**/v1/review?*", {"classes": classes})
    tab.goto(f"{site}/review")
    seen(tab, waiting=len(five))
    expect(tab.locator(".row .bar-name").first).to_have_text(evil)  # a text, never markup
    assert tab.title() == "Review · Picture sorter"
    caps = tab.locator(".row kbd").all_inner_texts()
    assert caps == [*"123456789", "a", "b", "c"]
    with tab.expect_request("**/v1/feedback") as request:
        tab.keyboard.press("b")
    assert request.value.post_data_json["label"] == "class 10"


def test_key_goes_along_with_every_question(tab: Page, site: str, five: list[str]) -> None:
    def check(route: Route) -> None:
        if route.request.headers.get("authorization") == "Bearer k":
            route.continue_()
        else:
            refuse(route, 401, "unauthorized", "A key is needed.")

    tab.route("**/v1/**", check)
    tab.goto(f"{site}/review")
    tab.locator("#key").fill("k")
    with heard(tab, "request", lambda one: (one.url, one.headers.get("authorization"))) as sent:
        tab.keyboard.press("Enter")
        seen(tab, waiting=len(five))
        tab.keyboard.press("1")
        seen(tab, waiting=4)
    asked = [(url, key) for url, key in sent if "/v1/" in url]
    assert sum(url.endswith("/image") for url, _ in asked) >= 2
    assert {key for _, key in asked} == {"Bearer k"}


def test_all_words_fit_and_can_be_read(page: Page) -> None:
    for scheme, width in itertools.product(("light", "dark"), (320, 1280)):
        page.set_viewport_size({"width": width, "height": 844})
        page.emulate_media(color_scheme=scheme, reduced_motion="reduce")  # at once, without fading
        assert faint_texts(page) == []
        assert cut_texts(page) == []
        assert sideways_pixels(page) <= 0
