"""Servers that are busy, refuse, fail, are absent or want a key, in a real Chromium."""

import pytest
from browsing import RED, choose, classified, file, refuse
from playwright.sync_api import Page, Route, expect

KEY = "s3cret-key"
FAILURE = {"type": "/problems/internal", "title": "internal", "status": 500, "detail": "It failed"}


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
    words = {403: "This key may not do that.", 504: "The answer took too long."}
    left = list(words)
    tab.route("**/v1/predict", lambda route: refuse(route, left[0], "slug", words[left.pop(0)]))
    tab.goto(site)
    choose(tab, *(file(f"{status}.jpg", RED) for status in words))
    expect(tab.locator("#summary")).to_have_text("2 not classified")
    assert sorted(tab.locator(".findings > .problem").all_inner_texts()) == sorted(words.values())
    tab.unroute("**/v1/predict")
    tab.get_by_role("button", name="Try again").first.click()
    classified(tab)
    expect(tab.locator(".card .label").first).to_have_text("red")
    expect(tab.locator(".findings > .problem").first).to_be_hidden()


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ({"status": 500, "headers": {"X-Request-Id": "id-7"}, "json": FAILURE}, "request id-7"),
        ({"status": 502, "body": "<h1>Bad Gateway"}, "Something between here and the server"),
    ],
)
def test_fault_of_the_server_or_of_a_proxy_is_told(
    tab: Page, site: str, answer: dict, words: str
) -> None:
    tab.route("**/v1/predict", lambda route: route.fulfill(**answer))
    tab.goto(site)
    choose(tab, file("red.jpg", RED))
    expect(tab.locator(".findings > .problem")).to_contain_text(words)


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
    classified(tab)
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
    expect(tab.locator("#summary")).to_have_text("3 not classified")
    expect(dialog).to_be_hidden()
    tab.get_by_role("button", name="Try again").first.click()
    tab.locator("#key").fill(KEY)
    tab.keyboard.press("Enter")
    classified(tab)
    tab.get_by_role("button", name="Key", exact=True).click()
    tab.get_by_role("button", name="Forget it").click()
    assert tab.evaluate("sessionStorage.length") == 0
