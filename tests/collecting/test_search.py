"""Result pages: asked for correctly, read whatever they look like, and told apart when useless."""

import html
import itertools
import threading
import urllib.parse

import pytest
from fake_bing import FakeBing, item, page_of, redirect, send

from classifier.collecting import search
from classifier.collecting.search import ImageSearch, SearchSettings
from classifier.errors import SearchError, UsageError

URL = "http://pictures.example/a.jpg"


def urls_of(page: str) -> list[str]:
    return [result.url for result in search.parse_page(page).results]


def add_links(bing: FakeBing, count: int) -> list[str]:
    bing.items = [item(f"http://pictures.example/{number}.jpg") for number in range(count)]
    return [fields["murl"] for fields in bing.items]


def test_page_url_names_query_offset_count_and_filters() -> None:
    settings = SearchSettings(adult_filter="strict", filters="+filterui:imagesize-large")
    url = urllib.parse.urlsplit(search.page_url(settings, "crème & brûlée", 36))
    assert f"{url.scheme}://{url.netloc}{url.path}" == "https://www.bing.com/images/async"
    assert dict(urllib.parse.parse_qsl(url.query, strict_parsing=True)) == {
        "q": "crème & brûlée",
        "first": "36",
        "count": "35",
        "mmasync": "1",
        "adlt": "strict",
        "qft": "+filterui:imagesize-large",
    }


def test_filters_copied_in_quoted_form_mean_the_same() -> None:
    plain, quoted = (
        search.page_url(SearchSettings(filters=text), "x", 1)
        for text in ("+filterui:photo-photo", "%2Bfilterui%3Aphoto-photo")
    )
    assert plain == quoted


@pytest.mark.parametrize(
    ("level", "value"), [("strict", "STRICT"), ("moderate", "DEMOTE"), ("off", "OFF")]
)
def test_adult_filter_is_sent_as_parameter_and_cookie(
    bing: FakeBing, level: str, value: str
) -> None:
    bing.find_nothing()
    list(ImageSearch(SearchSettings(base_url=bing.url, adult_filter=level)).results("x"))
    assert bing.page_requests[0]["adlt"] == level
    assert bing.headers[0]["Cookie"] == f"SRCHHPGUSR=ADLT={value}"


@pytest.mark.parametrize("url", ["ftp://x/", "www.bing.com", "http://"])
def test_useless_base_url_is_a_usage_error(url: str) -> None:
    with pytest.raises(UsageError, match="base URL"):
        SearchSettings(base_url=url)


def test_item_gives_address_page_title_and_digest() -> None:
    page = page_of([item(URL, purl="http://p.example/", t="Menu", md5="0" * 32)])
    assert search.parse_page(page).results == [
        search.SearchResult(URL, "http://p.example/", "Menu", "0" * 32)
    ]


@pytest.mark.parametrize(
    "url",
    [
        "http://h.example/a.jpg?w=1&h=2",
        "http://h.example/a%20b%25.jpg",
        "http://h.example/寿司.jpg?q=ü",
        "https://h.example:8443/x.png/revision/latest",
    ],
)
def test_address_comes_out_as_it_was_put_in(url: str) -> None:
    assert urls_of(page_of([item(url)])) == [url]


def test_escapes_of_json_are_undone() -> None:
    page = r'<a class="iusc" m="{&quot;murl&quot;:&quot;http:\/\/h.example\/?a=1\u0026b=2&quot;}">'
    assert urls_of(page) == ["http://h.example/?a=1&b=2"]


@pytest.mark.parametrize(
    "markup",
    [
        '<a m="{m}" class="x iusc y">',
        "<div class='iusc' m='{m}'></div>",
        '<a class="iusc" data-m="{m}">',
        '<a class=iusc href="?a=b" m="{m}" />',
        '<span title="{m}">',  # found by the search for bare text
        "<script>var items = [{raw}]</script>",
        '<a class="iusc" m="{raw}">',  # quotes that are not escaped
    ],
)
def test_item_is_found_in_changed_markup(markup: str) -> None:
    raw = f'{{"cid":"1","murl":"{URL}","t":"x"}}'
    page = markup.replace("{m}", html.escape(raw)).replace("{raw}", raw)
    assert urls_of(page) == [URL]


@pytest.mark.parametrize(
    "damaged", ["{", "[]", "null", '{"murl": 5}', '{"murl": "ftp://h/x"}', '{"t": "x"}', "[" * 9999]
)
def test_damaged_item_does_not_cost_the_good_ones(damaged: str) -> None:
    good = page_of([item(URL)])
    assert urls_of(f'<a class="iusc" m="{html.escape(damaged)}">{good}') == [URL]


@pytest.mark.parametrize("page", ["", "<", "<![weird[", '<a class="iusc" m="', "\0\0", "<!-- x"])
def test_nonsense_is_an_empty_page(page: str) -> None:
    assert search.parse_page(page).results == []


@pytest.mark.parametrize("has_next_url", [True, False])
def test_paging_leaves_no_gap_and_asks_for_item_offsets(
    bing: FakeBing, image_search: ImageSearch, has_next_url: bool
) -> None:
    bing.page_size, bing.has_next_url = 28, has_next_url
    urls = add_links(bing, 70)
    assert [result.url for result in image_search.results("x")] == urls
    assert [page["first"] for page in bing.page_requests] == ["1", "29", "57", "71"]


def test_offset_named_by_the_page_wins(bing: FakeBing, image_search: ImageSearch) -> None:
    bing.show(page_of([item(URL)], next_first=37))
    list(image_search.results("x"))
    assert [page["first"] for page in bing.page_requests][:2] == ["1", "37"]


def test_repeated_last_page_is_the_end(bing: FakeBing, image_search: ImageSearch) -> None:
    bing.repeats_last_page = True
    urls = add_links(bing, 50)
    assert [result.url for result in image_search.results("x")] == urls
    assert len(bing.page_requests) == 4


def test_page_is_asked_for_only_when_needed(bing: FakeBing, image_search: ImageSearch) -> None:
    add_links(bing, 70)
    assert len(list(itertools.islice(image_search.results("x"), 35))) == 35
    assert len(bing.page_requests) == 1


def test_stopped_search_asks_for_nothing(bing: FakeBing, image_search: ImageSearch) -> None:
    stop = threading.Event()
    stop.set()
    assert list(image_search.results("x", stop)) == []
    assert bing.requests == []


@pytest.mark.parametrize("page", ["", page_of([]), "There are no results for <a href='/'>x</a>"])
def test_no_results_is_no_error(bing: FakeBing, image_search: ImageSearch, page: str) -> None:
    bing.show(page)
    assert list(image_search.results("x")) == []


def test_captcha_is_told_as_blocked(bing: FakeBing, image_search: ImageSearch) -> None:
    bing.ask_for_captcha()
    with pytest.raises(search.BlockedError, match="person"):
        list(image_search.results("x"))
    assert len(bing.requests) == 1


@pytest.mark.parametrize("status", [403, 429, 503])
def test_refusing_status_is_told_as_blocked(
    bing: FakeBing, image_search: ImageSearch, status: int
) -> None:
    bing.search_answer = send(b"", status)
    with pytest.raises(search.BlockedError, match=str(status)):
        list(image_search.results("x"))


def test_redirect_away_from_images_is_told_as_blocked(
    bing: FakeBing, image_search: ImageSearch
) -> None:
    bing.search_answer = redirect("/turing/captcha")
    bing.routes["/turing/captcha"] = send(b"prove it")
    with pytest.raises(search.BlockedError, match="turing"):
        list(image_search.results("x"))


@pytest.mark.parametrize("num_pictures", [1, 500])
def test_changed_markup_is_told_and_keeps_the_page(
    bing: FakeBing, image_search: ImageSearch, num_pictures: int
) -> None:
    bing.show("<div class='newGrid'><img src='//h.example/a.jpg'></div>" * num_pictures)
    with pytest.raises(search.MarkupChangedError) as caught:
        list(image_search.results("x"))
    assert "newGrid" in caught.value.page


def test_nobody_listening_is_told_as_network_down() -> None:
    with FakeBing() as gone:
        settings = SearchSettings(base_url=gone.url, seconds_between_pages=0.0)
    with pytest.raises(search.NetworkDownError, match="cannot be reached"):
        list(ImageSearch(settings).results("x"))


def test_other_status_is_a_plain_search_error(bing: FakeBing, image_search: ImageSearch) -> None:
    bing.search_answer = send(b"", 500)
    with pytest.raises(SearchError, match="500") as caught:
        list(image_search.results("x"))
    assert caught.value.exit_code == 1


def test_each_situation_has_its_exit_code() -> None:
    kinds = (search.BlockedError, search.MarkupChangedError, search.NetworkDownError)
    assert [kind.exit_code for kind in kinds] == [4, 5, 6]
