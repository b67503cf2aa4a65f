"""Result pages are requested correctly and politely, and each useless one has its own error."""

import functools
import gzip
import itertools
import threading
import time
from pathlib import Path

import pytest
from fake_bing import FakeBing, item, page_of
from web_host import Answer, Handler, drip, in_turn, redirect, send, send_raw

from imagesieve.collecting.bing import search
from imagesieve.collecting.bing.errors import (
    BlockedError,
    MarkupChangedError,
    NetworkDownError,
)
from imagesieve.collecting.bing.queries import Query
from imagesieve.collecting.bing.search import (
    BASE_URL,
    BROWSER,
    ImageSearch,
    SavedPages,
)
from imagesieve.errors import SearchError, UsageError

X = Query("x")
URL = "http://images.example/a.jpg"


class Clock:
    """Time that passes only while something waits."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now

    def wait(self, event: threading.Event, seconds: float) -> None:
        if not event.is_set():
            self.now += seconds


def add_items(count: int, start: int = 0) -> list[dict[str, str]]:
    return [item(f"http://images.example/{number}.jpg") for number in range(start, start + count)]


def add_links(bing: FakeBing, count: int) -> list[str]:
    bing.items = add_items(count)
    return [fields["murl"] for fields in bing.items]


def urls_found(search: ImageSearch | SavedPages, query: Query = X) -> list[str]:
    return [result.url for result in search.results(query)]


def offsets_asked(bing: FakeBing) -> list[str]:
    return [page["first"] for page in bing.page_requests]


def pages(*texts: str | Answer) -> Answer:
    return in_turn(*(send(text.encode()) if isinstance(text, str) else text for text in texts))


def test_useless_base_url_is_a_usage_error() -> None:
    for url in ("ftp://x/", "www.bing.com", "http://", "http://[", ""):
        with pytest.raises(UsageError, match="base URL"):
            ImageSearch(url)


def test_same_url_comes_only_once_for_each_query(bing: FakeBing, image_search: ImageSearch) -> None:
    urls = ["http://h.example/1.jpg", "http://h.example/2.jpg"]
    same = (urls[0], "HTTP://H.example:80/1.jpg#x", *urls)
    bing.items = [item(url, md5="0" * 32) for url in same]  # another URL of one image comes too
    found = [(result.url, result.rank, result.query) for result in image_search.results(X)]
    assert found == [(urls[0], 1, "x"), (urls[1], 2, "x")]
    assert urls_found(image_search, Query("another query")) == urls


@pytest.mark.parametrize("has_next_url", [True, False])
@pytest.mark.parametrize("page_size", [27, 28, 34])
def test_paging_leaves_no_gap_and_asks_for_item_offsets(
    bing: FakeBing, image_search: ImageSearch, has_next_url: bool, page_size: int
) -> None:
    bing.page_size, bing.has_next_url = page_size, has_next_url
    urls = add_links(bing, 70)
    assert urls_found(image_search) == urls
    assert offsets_asked(bing) == [str(first) for first in [*range(1, 71, page_size), 71]]


def test_unreadable_items_count_for_the_offset(bing: FakeBing, image_search: ImageSearch) -> None:
    bing.has_next_url = False
    urls = add_links(bing, 50)
    bing.items[10]["murl"] = bing.items[20]["murl"] = "ftp://h.example/x"
    assert urls_found(image_search) == [url for url in urls if url not in (urls[10], urls[20])]
    assert offsets_asked(bing) == ["1", "36", "51"]


@pytest.mark.parametrize(
    ("link", "second"),
    [
        ("/images/async?q=x&amp;first=37", "37"),
        ("/images/async?q=x&amp;first=1", "2"),
        ("", "2"),
        ("http://127.0.0.1:9/steal?first=40&amp;count=99&amp;adlt=off", "40"),
    ],
)
def test_of_the_next_url_in_the_page_only_an_offset_that_leads_on_is_used(
    bing: FakeBing, image_search: ImageSearch, link: str, second: str
) -> None:
    bing.show(f'<div data-nextUrl="{link}">{page_of([item(URL)])}</div>')
    urls_found(image_search)
    assert offsets_asked(bing)[:2] == ["1", second]
    assert {(page["count"], page["adlt"]) for page in bing.page_requests} == {("35", "moderate")}


def test_repeated_last_page_is_the_end(bing: FakeBing, image_search: ImageSearch) -> None:
    bing.repeats_last_page = True
    urls = add_links(bing, 50)
    assert urls_found(image_search) == urls
    assert len(bing.page_requests) == 4


@pytest.mark.parametrize(
    ("shown", "num_asked"),
    [
        (("abc", "cba", "bc"), 3),  # reordered at the end
        (("ab", "ab", "c", "ab", "ab"), 5),  # one page without news is not the end
        (("ab", "bc", "c", ""), 4),  # pages that overlap
    ],
)
def test_each_image_of_odd_pages_comes_once(
    bing: FakeBing, image_search: ImageSearch, shown: tuple[str, ...], num_asked: int
) -> None:
    urls = {name: f"http://images.example/{name}.jpg" for name in "abc"}
    bing.search_answer = pages(*(page_of([item(urls[name]) for name in page]) for page in shown))
    assert urls_found(image_search) == list(urls.values())
    assert len(bing.page_requests) == num_asked


@pytest.mark.parametrize(("page_size", "num_pages"), [(35, 30), (1, 60)])
def test_search_without_end_is_ended(
    bing: FakeBing, image_search: ImageSearch, page_size: int, num_pages: int
) -> None:
    bing.page_size = page_size
    urls = add_links(bing, 35 * 30 + 100)
    assert urls_found(image_search) == urls[: page_size * num_pages]
    assert len(bing.page_requests) == num_pages


@pytest.mark.parametrize(
    "page",
    [
        "",
        page_of([]),
        "There are no results for <a href='/'>captcha</a>",
        '<div data-nextUrl="/images/async?q=captcha&amp;first=9"></div>',
        "<p>No results for captcha, unusual traffic</p>" + "<img src=x>" * 1000,
    ],
)
def test_no_results_is_no_error(bing: FakeBing, image_search: ImageSearch, page: str) -> None:
    bing.show(page)
    for words in ("captcha", "CAPTCHA"):
        assert urls_found(image_search, Query(words)) == []
    assert len(bing.requests) == 2
    first, second = page_of(add_items(35), 36), page_of(add_items(35, 35), 71)
    bing.search_answer = pages(first, second, page or '<ul><li><a href="/">Home</a></li></ul>')
    assert len(urls_found(image_search, Query("captcha"))) == 70


NEW_GRID = "<div class='newGrid'><img src='//h.example/a.jpg'></div>"
# What comes instead of a result page, its error, words of that, and the number of requests.
# What comes instead of a result page, its error, words of that, and the number of requests.
FAILURES = {
    "captcha": (send(b"<title>Bing</title><p class='captcha'>"), BlockedError, "person", 1),
    "403": (send(b"", 403), BlockedError, "refuses to answer .*403", 1),
    "429": (send(b"", 429), BlockedError, "refuses to answer .*429", 3),
    "503": (send(b"", 503), BlockedError, "refuses to answer .*503", 3),
    "sent to a captcha": (redirect("/turing/captcha"), BlockedError, "/turing/captcha", 2),
    "sent to a login": (redirect("/login"), BlockedError, "/login", 2),
    "in a circle": (redirect("/images/async?q=x&first=1"), BlockedError, "redirects", 2),
    "new markup": (send(NEW_GRID.encode()), MarkupChangedError, "changed", 1),
    "a new grid": (send(500 * NEW_GRID.encode()), MarkupChangedError, "changed", 1),
    "500": (send(b"", 500), SearchError, "500", 3),
    "404": (send(b"", 404), SearchError, "404", 1),
    "damaged": (send(b"not gzip", Content_Encoding="gzip"), SearchError, "compression", 1),
    "huge": (send(b"", Content_Length=str(9 * 2**20)), SearchError, "too many bytes", 1),
}


@pytest.mark.parametrize(("answer", "kind", "reason", "num_asked"), FAILURES.values(), ids=FAILURES)
@pytest.mark.parametrize("words", ["x", "no results", "one last step"])
def test_each_failure_has_its_error_after_bounded_tries(
    bing: FakeBing,
    image_search: ImageSearch,
    answer: Answer,
    kind: type[SearchError],
    reason: str,
    num_asked: int,
    words: str,
) -> None:
    bing.search_answer = answer
    for location in ("/turing/captcha", "/login"):
        bing.routes[location] = send(page_of([item(URL)]).encode())
    with pytest.raises(SearchError, match=reason) as caught:
        urls_found(image_search, Query(words))
    assert type(caught.value) is kind
    assert len(bing.requests) == num_asked
    if isinstance(caught.value, MarkupChangedError):
        assert NEW_GRID in caught.value.page


def test_compressed_page_of_another_bing_is_read(
    bing: FakeBing, image_search: ImageSearch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")  # which is not used
    body = gzip.compress(page_of([item(URL)]).encode())
    elsewhere = redirect(f"{bing.host(7)}/images/async?q=x&first=1")
    bing.search_answer = pages(elsewhere, send(body, Content_Encoding="gzip"), "")
    assert urls_found(image_search) == [URL]
    assert bing.headers[0]["User-Agent"] == BROWSER
    assert bing.headers[0]["Accept-Encoding"] == "identity"


def test_unknown_host_is_reported_as_network_down() -> None:
    clock = Clock()
    with pytest.raises(NetworkDownError, match="unknown host"):
        urls_found(ImageSearch("http://bing.invalid", clock=clock, wait=clock.wait))


def hang_up(handler: Handler) -> None:
    handler.close_connection = True


def test_page_that_fails_for_a_moment_is_asked_for_again(
    bing: FakeBing, image_search: ImageSearch
) -> None:
    failures = [send(b"", status) for status in (408, 429, 500, 503)]
    for failure in (*failures, hang_up):
        bing.requests.clear()
        bing.search_answer = pages(failure, failure, page_of([item(URL)]), "")
        assert urls_found(image_search) == [URL]
        assert offsets_asked(bing) == ["1", "1", "1", "2"]


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (send(b"<div class=captcha>"), BlockedError),
        (send(b"", 429), BlockedError),
        (send(b"<div class=newGrid>image</div>" * 300), MarkupChangedError),
        (send(b"<img src=a.jpg>"), MarkupChangedError),
        (hang_up, NetworkDownError),
        (send(b"", 500), SearchError),
    ],
)
def test_failure_of_a_later_page_is_raised_after_the_good_results(
    bing: FakeBing, image_search: ImageSearch, answer: Answer, error: type[Exception]
) -> None:
    bing.search_answer = pages(page_of(add_items(35), 36), page_of(add_items(35, 35)), answer)
    results = image_search.results(X)
    assert len(list(itertools.islice(results, 70))) == 70
    with pytest.raises(error):
        next(results)


def recorded_search(bing: FakeBing, answer: Answer) -> tuple[ImageSearch, list[float]]:
    """Return a search by a clock of its own, and the times at which pages are asked for."""
    clock, times = Clock(), list[float]()

    def recorded(handler: Handler) -> None:
        times.append(clock.now)
        answer(handler)

    bing.search_answer = recorded
    return ImageSearch(bing.url, 1.0, clock=clock, wait=clock.wait), times


def gaps(times: list[float]) -> list[float]:
    return [later - earlier for earlier, later in itertools.pairwise(times)]


def test_pages_keep_their_distance_also_across_queries(bing: FakeBing) -> None:
    search, times = recorded_search(bing, pages(*(page_of([one]) for one in add_items(9)), ""))
    urls_found(search)
    urls_found(search, Query("y"))
    assert (len(times), times[0]) == (11, 1000.0)
    assert all(1.0 <= gap <= 1.5 + 1e-6 for gap in gaps(times))
    assert len(set(gaps(times))) > 5  # chance has its share


def test_retries_wait_longer_each_time(bing: FakeBing) -> None:
    search, times = recorded_search(bing, send(b"", 500))
    with pytest.raises(SearchError):
        urls_found(search)
    assert gaps(times) == pytest.approx([2.0, 4.0])


@pytest.mark.parametrize(("asked", "waited"), [("0", 2.0), ("7", 7.0), ("86400", 30.0)])
def test_retry_waits_as_long_as_the_server_asks_within_reason(
    bing: FakeBing, asked: str, waited: float
) -> None:
    refusal = send(b"", 429, Retry_After=asked)
    search, times = recorded_search(bing, pages(refusal, page_of([item(URL)]), ""))
    assert urls_found(search) == [URL]
    assert gaps(times)[0] == pytest.approx(waited)


def test_only_ones_own_machine_is_asked_without_a_pause() -> None:
    own = ("http://127.0.0.1:80", "http://127.9.9.9", "http://[::1]:80", "http://localhost:8000/")
    others = (BASE_URL, "http://192.168.1.5", "http://localhost.example")
    assert [ImageSearch(url).pause_seconds for url in (*own, *others)] == [0.0] * 4 + [1.0] * 3
    assert {ImageSearch(url, 0.5).pause_seconds for url in (*own, *others)} == {0.5}


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (drip(b"HTTP/1.0 200 OK\r\n\r\n", every=0.001, at_most=20.0), "timeout"),
        (drip(b"HTTP/1.0 200 OK\r\nX: "), "timeout"),
        (send_raw(b"SSH-2.0-OpenSSH_9.9\r\n"), "damaged answer"),
    ],
    ids=["endless body", "dripping header", "no http"],
)
def test_page_that_never_comes_ends_at_its_deadline(
    bing: FakeBing, monkeypatch: pytest.MonkeyPatch, answer: Answer, words: str
) -> None:
    quick = functools.partial(search.FetchSettings, total_seconds=0.4, min_bytes_per_second=0)
    monkeypatch.setattr(search, "FetchSettings", quick)
    monkeypatch.setattr(search, "_MAX_TRIES", 1)
    bing.search_answer = answer
    start = time.monotonic()
    with pytest.raises(NetworkDownError, match=words):
        urls_found(ImageSearch(bing.url))
    assert time.monotonic() - start < 10.0


def test_cut_ends_every_search_that_was_begun_and_none_after(
    bing: FakeBing, image_search: ImageSearch
) -> None:
    urls = add_links(bing, 70)
    begun, waiting = image_search.results(X), image_search.results(Query("y"))
    assert [result.url for result in itertools.islice(begun, 30)] == urls[:30]
    image_search.cut()
    assert [*begun, *waiting] == []
    assert len(bing.requests) == 1  # a page is asked for only when it is needed
    assert urls_found(image_search) == urls


@pytest.mark.parametrize("is_on_its_way", [True, False])
def test_cut_ends_a_page_that_is_on_its_way_and_the_pause_before_it(
    bing: FakeBing, is_on_its_way: bool
) -> None:
    search = ImageSearch(bing.url)

    def answer(handler: Handler) -> None:
        threading.Timer(0.1, search.cut).start()
        if is_on_its_way:
            bing.closing.wait(20.0)
        send(b"", 429, Retry_After="30")(handler)

    bing.search_answer = in_turn(answer, send(page_of([item(URL)]).encode()), send(b""))
    start = time.monotonic()
    assert urls_found(search) == []
    assert time.monotonic() - start < 5.0
    assert len(bing.requests) == 1
    assert urls_found(search) == [URL]


def test_searches_may_take_turns(bing: FakeBing, image_search: ImageSearch) -> None:
    bing.items_of = {
        words: [item(f"http://{words}.example/{number}.jpg") for number in range(50)]
        for words in ("a", "b")
    }
    turns = zip(image_search.results(Query("a")), image_search.results(Query("b")), strict=True)
    assert [(a.rank, b.rank) for a, b in turns] == [(rank, rank) for rank in range(1, 51)]


def test_saved_pages_are_read_in_the_order_of_names(tmp_path: Path) -> None:
    links = add_items(6)
    (tmp_path / "b.html").write_text(page_of(links[2:5]))
    (tmp_path / "a.htm").write_text(page_of(links[:3]))
    (tmp_path / "c.HTML").write_bytes(page_of(links[4:]).encode("utf-16"))
    (tmp_path / "d.html").write_text("nothing")
    (tmp_path / "e.txt").write_text(page_of([item(URL)]))
    (tmp_path / "f.html").mkdir()
    results = list(SavedPages(tmp_path).results(X))
    assert [result.url for result in results] == [fields["murl"] for fields in links]
    assert [result.rank for result in results] == [1, 2, 3, 4, 5, 6]
    assert [result.url for result in SavedPages(tmp_path / "e.txt").results(X)] == [URL]


def test_saved_pages_without_an_image_are_reported_as_changed_markup(tmp_path: Path) -> None:
    for path in (tmp_path / "missing", tmp_path):
        with pytest.raises(UsageError, match="result page"):
            SavedPages(path)
    (tmp_path / "a.html").write_text("<title>something else</title>")
    (tmp_path / "b.html").write_text("")
    with pytest.raises(MarkupChangedError, match="Nothing can be read") as caught:
        urls_found(SavedPages(tmp_path))
    assert caught.value.page == "<title>something else</title>"
