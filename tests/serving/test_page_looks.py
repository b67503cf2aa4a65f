"""The page on telephones, in light and dark, and without motion, in a real Chromium."""

import re

from browsing import (
    RED,
    change_answer,
    choose,
    cut_texts,
    faint_texts,
    file,
    hand_over,
    murky,
    sideways_pixels,
)
from playwright.sync_api import Page, expect


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
