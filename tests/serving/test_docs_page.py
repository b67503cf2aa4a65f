"""The page that makes the API's description readable, driven in a real Chromium."""

import itertools
import re
from typing import Any

import pytest
import requests
from browsing import cut_texts, faint_texts, sideways_pixels
from openapi_sample import OPENAPI
from playwright.sync_api import Page, Route, expect

SECONDS = 20


@pytest.fixture
def page(tab: Page, site: str) -> Page:
    """Give the page about the service's own description."""
    tab.goto(f"{site}/docs")
    return tab


@pytest.fixture
def sample(tab: Page, site: str) -> Page:
    """Give the page about a description that has a bit of everything."""
    tab.route("**/openapi.json", lambda route: route.fulfill(json=OPENAPI))
    tab.goto(f"{site}/docs")
    return tab


def route_card(page: Page, method: str, path: str) -> Any:
    """Give the part of the page about one route."""
    return page.locator(f"article[id='{method}{path.replace('/', '-')}']")


def test_every_route_is_there_and_in_the_list(page: Page, site: str) -> None:
    paths = requests.get(f"{site}/openapi.json", timeout=SECONDS).json()["paths"]
    methods = ("get", "post", "put", "patch", "delete")
    wanted = sorted(
        f"{method.upper()} {path}"
        for path, item in paths.items()
        for method in methods
        if method in item
    )
    expect(page.locator(".route")).to_have_count(len(wanted))
    for selector in (".route h3", "#contents li a"):
        shown = [" ".join(one.all_inner_texts()) for one in page.locator(selector).all()]
        assert sorted(" ".join(words.removesuffix("old").split()) for words in shown) == wanted
    for anchor in page.locator("#contents a").all():
        assert page.locator(anchor.get_attribute("href")).count() == 1


def test_route_tells_parameters_forms_and_answers(sample: Page) -> None:
    card = route_card(sample, "post", "/v1/predict")
    expect(card.locator(".route-summary")).to_have_text("Judge one image")
    expect(card.locator("li")).to_have_text(["its bytes", "a file", "Base64"])
    expect(card).to_contain_text("asks for a key that allows predict")
    table = card.locator("table").first
    expect(table.locator("tbody tr").first).to_contain_text("top_k")
    expect(table.locator("tbody tr").first).to_contain_text("answer with · from 1 to 1000")
    expect(card.locator(".media-type")).to_have_text(
        ["image/*", "application/json", "application/json"]
    )
    card.locator("summary", has_text="200").click()
    names = card.locator(".fold[open] td:first-child code")
    expect(names.first).to_be_visible()
    assert names.all_inner_texts()[:5] == ["id", "label", "image", "image.width", "image.thumbnail"]
    card.locator("summary", has_text="400, 413, 503").click()
    expect(card.locator(".fold[open] tr", has_text="503").locator("code")).to_have_text(
        "Retry-After"
    )


def test_groups_follow_their_tags(sample: Page) -> None:
    expect(sample.locator(".chapter > h2")).to_have_text(["Judge", "Correct", "Other"])
    expect(sample.locator("#contents h2")).to_have_text(["Judge", "Correct", "Other"])


def test_errors_are_told_once_for_all_routes(sample: Page) -> None:
    rows = sample.locator("#error-table tbody tr")
    expect(rows.locator(".status")).to_have_text(["400", "400", "413", "503"])
    expect(rows.nth(0)).to_contain_text("bad-parameter")
    expect(rows.nth(1).locator("code")).to_have_text(["missing-image", "image"])


def test_command_is_copied(page: Page, site: str) -> None:
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    block = page.locator(".route").first.locator(".code").first
    block.get_by_role("button", name="Copy").click()
    expect(block.get_by_role("button")).to_have_text("Copied")
    copied = page.evaluate("navigator.clipboard.readText()")
    assert copied == block.locator("code").inner_text()
    assert copied.startswith("curl ")
    assert site in copied


def test_markup_in_a_description_stays_text(tab: Page, site: str) -> None:
    evil = "<img src=x onerror=document.title='broken-into'>"
    operation = {
        "summary": evil,
        "description": f"- {evil}",
        "responses": {"200": {"description": evil}},
    }
    spec = {
        "openapi": "3.1.0",
        "info": {"title": evil, "version": evil, "description": evil},
        "paths": {f"/{evil}": {"get": operation}},
    }

    def describe(route: Route) -> None:
        route.fulfill(json=spec)

    tab.route("**/openapi.json", describe)
    tab.goto(f"{site}/docs")
    expect(tab.locator("#docs-title")).to_have_text(evil)
    expect(tab.locator(".route-summary")).to_have_text(evil)
    expect(tab.locator("main img")).to_have_count(0)
    assert tab.title() == "API · Image sorter"


def test_address_of_a_route_leads_to_it(tab: Page, site: str) -> None:
    paths = requests.get(f"{site}/openapi.json", timeout=SECONDS).json()["paths"]
    path, item = list(paths.items())[-1]
    name = re.sub("[^a-zA-Z0-9]+", "-", next(iter(item)) + path)
    tab.goto("about:blank")  # within one page nothing would be loaded
    tab.goto(f"{site}/docs#{name}")
    expect(tab.locator(f"[id='{name}']")).to_be_in_viewport()


def test_missing_description_is_said_so(tab: Page, site: str) -> None:
    tab.route("**/openapi.json", lambda route: route.fulfill(status=404, body=""))
    tab.goto(f"{site}/docs")
    expect(tab.locator("#docs-version")).to_have_text("This server does not offer that.")


def test_all_words_fit_and_can_be_read(page: Page) -> None:
    expect(page.locator(".route").first).to_be_visible()
    page.evaluate("document.querySelectorAll('details').forEach((one) => (one.open = true))")
    for scheme, width in itertools.product(("light", "dark"), (320, 1280)):
        page.set_viewport_size({"width": width, "height": 844})
        page.emulate_media(color_scheme=scheme, reduced_motion="reduce")  # at once, without fading
        assert faint_texts(page) == []
        assert cut_texts(page) == []
        assert sideways_pixels(page) <= 0
