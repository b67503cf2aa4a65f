"""Swagger UI on `/docs`, driven in a real Chromium: offline, under our policy, and working."""

from pathlib import Path
from typing import Any

import requests
from browsing import RED, heard, refuse, sideways_pixels
from guarding import SHOP, client_of, ring
from playwright.sync_api import Locator, Page, Route, expect
from running import SECONDS

from imagesieve.serving.access import Access

METHODS = ("get", "post", "put", "patch", "delete")


def block(page: Page, name: str, tag: str = "Predict") -> Locator:
    """Return the part of the page about one operation, opened."""
    part = page.locator(f"#operations-{tag.replace(' ', '_')}-{name}")
    part.locator(".opblock-summary-control").click()
    return part


def execute(part: Locator) -> Locator:
    """Send the request that is filled in, and return the status of the live answer."""
    part.get_by_role("button", name="Execute").click()
    return part.locator(".live-responses-table .response-col_status").last


def test_every_operation_is_shown_by_this_server_alone_and_no_script_stands_in_the_page(
    tab: Page, site: str
) -> None:
    paths = requests.get(f"{site}/openapi.json", timeout=SECONDS).json()["paths"]
    count = sum(method in item for item in paths.values() for method in METHODS)
    with (
        heard(tab, "request", lambda request: request.url) as urls,
        heard(tab, "console", lambda message: message.text) as messages,
    ):
        tab.goto(f"{site}/docs")
        expect(tab.locator(".opblock")).to_have_count(count)
        block(tab, "predict")
    expect(tab.locator(".info .title")).to_contain_text("Image sorter")
    expect(tab.locator(".errors-wrapper")).to_have_count(0)
    assert urls
    assert [url for url in urls if not url.startswith((f"{site}/", "data:", "blob:"))] == []
    assert messages == []
    policies = {
        path: requests.get(site + path, timeout=SECONDS).headers["Content-Security-Policy"]
        for path in ("/docs", "/", "/review", "/docs/swagger-ui.css")
    }
    assert "style-src 'self' 'unsafe-inline'" in policies.pop("/docs")
    assert not [policy for policy in policies.values() if "unsafe" in policy]


def test_only_the_files_that_the_page_needs_are_served(site: str) -> None:
    for name in ("swagger-ui.css", "swagger-ui-bundle.js"):
        response = requests.get(f"{site}/docs/{name}", timeout=SECONDS)
        assert response.status_code == 200
        again = {"If-None-Match": response.headers["ETag"]}
        response = requests.get(f"{site}/docs/{name}", headers=again, timeout=SECONDS)
        assert response.status_code == 304
    for name in ("swagger-ui.js", "oauth2-redirect.html", "../__init__.py", "..%2f__init__.py"):
        assert requests.get(f"{site}/docs/{name}", timeout=SECONDS).status_code == 404


def test_image_is_classified_from_the_page_with_options_that_are_checked(
    tab: Page, site: str, tmp_path: Path
) -> None:
    image = tmp_path / "red.jpg"
    image.write_bytes(RED)
    tab.goto(f"{site}/docs")
    part = block(tab, "predict")
    for media_type in ("multipart/form-data", "image/*"):
        part.locator(".opblock-section-request-body select").first.select_option(media_type)
        part.locator("input[type=file]").first.set_input_files(str(image))
        expect(execute(part)).to_contain_text("200")
        expect(part.locator(".live-responses-table")).to_contain_text('"label": "red"')
    part.locator("tr[data-param-name=data_id] input").fill("shop/7")
    part.locator("tr[data-param-name=top_k] input").fill("0")
    part.get_by_role("button", name="Execute").click()
    expect(part.locator(".validation-errors")).to_contain_text("'top_k'")
    part.locator("tr[data-param-name=top_k] input").fill("1")
    expect(execute(part)).to_contain_text("200")
    expect(part.locator(".request-url")).to_contain_text("top_k=1")
    expect(part.locator(".live-responses-table")).to_contain_text('"data_id": "shop/7"')
    tab.set_viewport_size({"width": 390, "height": 844})
    assert sideways_pixels(tab) <= 0


def test_key_is_sent_after_authorize(tab: Page, site: str) -> None:
    def check(route: Route) -> None:
        if route.request.headers.get("x-api-key") == SHOP:
            route.continue_()
        else:
            refuse(route, 401, "unauthorized", "A key is needed.")

    spec = client_of(Access(ring())).get("/openapi.json").get_json()
    tab.route("**/openapi.json", lambda route: route.fulfill(json=spec))
    tab.route("**/v1/model", check)
    tab.goto(f"{site}/docs")
    part = block(tab, "model")
    expect(execute(part)).to_contain_text("401")
    tab.locator(".auth-wrapper .authorize").first.click()
    field = tab.locator("#api_key_value")
    field.fill(SHOP)
    tab.locator(".auth-container", has=field).get_by_role("button", name="Apply").click()
    tab.get_by_role("button", name="Close").first.click()
    expect(execute(part)).to_contain_text("200")


def test_markup_in_a_description_stays_text(tab: Page, site: str) -> None:
    evil = "<img src=x onerror=document.title='broken-into'><script>document.title='no'</script>"
    operation: dict[str, Any] = {
        "summary": evil,
        "description": evil,
        "responses": {"200": {"description": evil}},
    }
    spec = {
        "openapi": "3.1.0",
        "info": {"title": evil, "version": "1", "description": evil},
        "paths": {"/x": {"get": operation}},
    }
    tab.route("**/openapi.json", lambda route: route.fulfill(json=spec))
    tab.goto(f"{site}/docs")
    expect(tab.locator(".opblock")).to_have_count(1)
    tab.locator(".opblock-summary-control").click()
    expect(tab.locator(".opblock-description")).to_be_visible()
    assert tab.title() == "API · Picture sorter"
