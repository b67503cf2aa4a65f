"""Every option of a query comes out as Bing's own parameter, cookie or header."""

import re
import urllib.parse
from typing import Any

import pytest
from fake_bing import FakeBing

from imagesieve.collecting.bing.queries import FILTERS, Query, SearchOptions, page_headers, page_url
from imagesieve.collecting.bing.search import ImageSearch
from imagesieve.errors import UsageError

BASE = "https://www.bing.com"
START = "q=menu&first=1&count=35&mmasync=1&adlt=moderate&safeSearch=Moderate"


def menu(**options: Any) -> Query:
    return Query("menu", SearchOptions(**options))


def asked(query: Query) -> dict[str, str]:
    query_string = urllib.parse.urlsplit(page_url(BASE, query, 1)).query
    return dict(urllib.parse.parse_qsl(query_string, strict_parsing=True))


def test_plain_query_names_words_offset_count_and_safe_search() -> None:
    assert page_url(BASE, Query("menu"), 1) == f"{BASE}/images/async?{START}"
    assert page_url(f"{BASE}/", Query(" menu "), 1) == f"{BASE}/images/async?{START}"
    quoted = "cr%C3%A8me+%26+br%C3%BBl%C3%A9e+%2B%E5%AF%BF%E5%8F%B8%3D%F0%9F%8D%A3"
    url = page_url(BASE, Query("crème & brûlée +寿司=🍣"), 36)
    assert url.startswith(f"{BASE}/images/async?q={quoted}&first=36&count=35&")


@pytest.mark.parametrize(
    ("level", "parameters", "cookie"),
    [
        ("strict", "adlt=strict&safeSearch=Strict", "SRCHHPGUSR=ADLT=STRICT"),
        ("moderate", "adlt=moderate&safeSearch=Moderate", "SRCHHPGUSR=ADLT=DEMOTE"),
        ("off", "adlt=off&safeSearch=Off", "SRCHHPGUSR=ADLT=OFF"),
    ],
)
def test_safe_search_is_sent_as_parameters_and_as_cookie(
    level: str, parameters: str, cookie: str
) -> None:
    query = menu(safe_search=level)
    assert page_url(BASE, query, 1).endswith(f"?q=menu&first=1&count=35&mmasync=1&{parameters}")
    assert page_headers(query) == {
        "Accept": "text/html",
        "Accept-Language": "en-US,en;q=0.9",
        "Cookie": cookie,
    }


@pytest.mark.parametrize(
    ("market", "parameters", "language"),
    [
        ("en-US", "mkt=en-US&setlang=en-US&cc=US", "en-US,en;q=0.9"),
        ("de-AT", "mkt=de-AT&setlang=de-AT&cc=AT", "de-AT,de;q=0.9"),
        ("ZH-tw", "mkt=zh-TW&setlang=zh-TW&cc=TW", "zh-TW,zh;q=0.9"),
        ("fil-PH", "mkt=fil-PH&setlang=fil-PH&cc=PH", "fil-PH,fil;q=0.9"),
    ],
)
def test_market_is_sent_as_parameters_and_as_header(
    market: str, parameters: str, language: str
) -> None:
    query = menu(market=market)
    assert page_url(BASE, query, 1) == f"{BASE}/images/async?{START}&{parameters}"
    assert page_headers(query)["Accept-Language"] == language


@pytest.mark.parametrize("option", FILTERS)
def test_named_filters_are_sent_in_the_words_of_bing(option: str) -> None:
    sizes = {"larger-than:640x480": "imagesize-custom_640_480"} if option == "size" else {}
    for name, word in {**FILTERS[option], **sizes}.items():
        url = page_url(BASE, menu(**{option: name}), 1)
        assert url == f"{BASE}/images/async?{START}&qft=%2Bfilterui%3A{word}"


def test_filters_add_up_and_the_raw_ones_come_last() -> None:
    query = menu(size="large", type="photo", license="share", filters="+filterui:aspect-tall")
    assert asked(query)["qft"] == (
        "+filterui:imagesize-large+filterui:photo-photo"
        "+filterui:license-L2_L3_L4_L5_L6_L7+filterui:aspect-tall"
    )


def test_raw_filters_mean_the_same_in_every_form() -> None:
    plain = "+filterui:photo-photo+filterui:color2-bw"
    quoted = plain.replace("+", "%2B").replace(":", "%3A")
    for text in (plain, quoted, plain.replace("+", "%2b"), plain[1:], f" {plain} "):
        assert asked(menu(filters=text))["qft"] == plain


def test_server_sees_parameters_and_headers(bing: FakeBing, image_search: ImageSearch) -> None:
    bing.show("")
    list(image_search.results(menu(safe_search="off", market="ja-JP", people="face")))
    assert bing.requests == [
        "/images/async?q=menu&first=1&count=35&mmasync=1&adlt=off&safeSearch=Off"
        "&mkt=ja-JP&setlang=ja-JP&cc=JP&qft=%2Bfilterui%3Aface-face"
    ]
    assert bing.headers[0]["Cookie"] == "SRCHHPGUSR=ADLT=OFF"
    assert bing.headers[0]["Accept-Language"] == "ja-JP,ja;q=0.9"


@pytest.mark.parametrize("option", FILTERS)
def test_unknown_name_is_a_usage_error_that_lists_the_choices(option: str) -> None:
    names = re.escape(", ".join(FILTERS[option]))
    with pytest.raises(UsageError, match=f"^--{option} 'huge' is not one of: {names}"):
        SearchOptions(**{option: "huge"})


USELESS = {
    "safe_search": (["none"], "--safe-search 'none' is not one of: strict, moderate, off"),
    "size": (
        ["larger-than:", "larger-than:0x5", "larger-than:9x", "5x5"],
        "--size .* larger-than:WIDTHxHEIGHT",
    ),
    "market": (
        ["en", "en-USA", "english", "en_US", "e-US", "-", "en-US\n"],
        r"--market '.*' is not a language and a country.* en-US",
    ),
}


@pytest.mark.parametrize("option", USELESS)
def test_useless_option_is_a_usage_error(option: str) -> None:
    values, sentence = USELESS[option]
    for value in values:
        with pytest.raises(UsageError, match=sentence):
            SearchOptions(**{option: value})


def test_useless_words_are_a_usage_error() -> None:
    for text in ("", "  ", "\udcff", "a\0"):
        with pytest.raises(UsageError, match="search words"):
            Query(text)
