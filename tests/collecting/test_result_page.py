"""Result pages are read whatever they look like, and nothing in them makes the reader fail."""

import html
import json
import random
import urllib.parse

import pytest
from fake_bing import FakeBing, item, page_of
from web_host import send

from imagesieve.collecting.bing.result_page import (
    ResultPage,
    SearchResult,
    decode_page,
    parse_page,
)
from imagesieve.web.fetch import Fetcher, FetchSettings

URL = "http://images.example/a.jpg"
RAW = f'{{"cid":"1","murl":"{URL}","t":"x"}}'
QUOTED = html.escape(RAW)
LINK = "/images/search?view=detailV2&amp;mediaurl=http%3a%2f%2fimages.example%2fa.jpg"
DIGEST = "00112233445566778899aabbccddeeff"


def urls_of(page: str) -> list[str]:
    return [result.url for result in parse_page(page).results]


def link_of(*, mediaurl: str = "", expw: object = "", exph: object = "") -> str:
    """Write an item that can be read only by its link."""
    query = urllib.parse.urlencode({"mediaurl": mediaurl, "exph": exph, "expw": expw})
    return f'<a class="iusc" m="{{" href="/images/search?{html.escape(query)}"></a>'


def test_item_has_url_page_title_and_digest_if_they_are_of_the_right_kind() -> None:
    page = page_of([item(URL, purl="http://p.example/x", t="Menu", md5=DIGEST)])
    again = f'<a class="more" href="{LINK}">{QUOTED}</a>'  # no second item
    expected = SearchResult(URL, "http://p.example/x", "Menu", DIGEST)
    assert parse_page(page + again) == ResultPage([expected], 1, None, "item")
    fields = {"murl": URL, "purl": "javascript:x", "t": 7, "md5": ["x"]}
    page = f'<a class="iusc" m="{html.escape(json.dumps(fields))}">'
    assert parse_page(page).results == [SearchResult(URL)]


@pytest.mark.parametrize(
    ("url", "sent"),
    [
        ("http://h.example/a.jpg?w=1&h=2&amp;c=3", None),
        ("http://h.example/a%20b%25%2f.jpg", None),
        ("https://h.example:8443/x.png/revision/latest", None),
        ("http://h.example/a;b,c@d!$'()*+[1]~.jpg?e[]=:/?", None),
        ("http://user:pass@h.example/a.jpg", "http://h.example/a.jpg"),
        ("http://[2001:db8::1]:8080/a.jpg", None),
        ("http://a_b.example/a.jpg", None),
        ("http://h.example/a b.jpg?c d", "http://h.example/a%20b.jpg?c%20d"),
        ("http://h.example/100%.jpg?5%zz%41", "http://h.example/100%25.jpg?5%25zz%41"),
        ("http://h.example/a.jpg#top", "http://h.example/a.jpg"),
        ('http://h.example/<a>"{b}|\\^`', "http://h.example/%3Ca%3E%22%7Bb%7D%7C%5C%5E%60"),
        ("HTTP://H.Example:80/A.JPG", "http://h.example/A.JPG"),
        ("https://h.example:443", "https://h.example/"),
        (" http://h.example/a.jpg\n", "http://h.example/a.jpg"),
        ("http://h.example/寿司.jpg?q=ü", "http://h.example/%E5%AF%BF%E5%8F%B8.jpg?q=%C3%BC"),
        ("http://h.example/🍣.jpg", "http://h.example/%F0%9F%8D%A3.jpg"),
        ("http://h.example/صورة.jpg", "http://h.example/%D8%B5%D9%88%D8%B1%D8%A9.jpg"),
        ("http://寿司.example/a.jpg", "http://xn--sprr0q.example/a.jpg"),
        ("http://Bücher.example/a.jpg", "http://xn--bcher-kva.example/a.jpg"),
        ("http://❤️.example/a.jpg", "http://xn--qei.example/a.jpg"),
        ("http://🍣.寿司。example:81/", "http://xn--9i8h.xn--sprr0q.example:81/"),
    ],
)
def test_url_comes_out_as_it_is_requested(url: str, sent: str | None) -> None:
    assert urls_of(page_of([item(url)])) == [sent or url]


@pytest.mark.parametrize(
    ("written", "path"),
    [
        (r"http://HOST/?a=1&amp;b=2", "/?a=1&b=2"),
        (r"http://HOST/?a=1&amp;amp;b=2", "/?a=1&amp;b=2"),
        (r"http:\/\/HOST\/?a=1\u0026b=2", "/?a=1&b=2"),
        (r"http://HOST/?copy=1&amp;copy=2&amp;lt=3", "/?copy=1&copy=2&lt=3"),
        (r"http://HOST/a%20b.jpg", "/a%20b.jpg"),
        (r"http://HOST/a b.jpg", "/a%20b.jpg"),
        (r"http://HOST/a%25b.jpg", "/a%25b.jpg"),
        (r"http://HOST/a%2520b.jpg", "/a%2520b.jpg"),
        (r"http://HOST/寿司.jpg", "/%E5%AF%BF%E5%8F%B8.jpg"),
        (r"http://HOST/\u5bff\u53f8.jpg", "/%E5%AF%BF%E5%8F%B8.jpg"),
        (r"http://HOST/&#x5bff;&#21496;.jpg", "/%E5%AF%BF%E5%8F%B8.jpg"),
    ],
)
@pytest.mark.parametrize("attribute", ["m", "title"])
def test_the_very_url_that_bing_means_is_requested(
    bing: FakeBing, written: str, path: str, attribute: str
) -> None:
    bing.routes[path] = send(b"here")
    murl = written.replace("HOST", bing.url.removeprefix("http://"))
    page = f'<a class="iusc" {attribute}="{{&quot;murl&quot;:&quot;{murl}&quot;}}">'
    (url,) = urls_of(page)
    fetched = Fetcher(FetchSettings(allow_private_hosts=True)).fetch(url)
    assert fetched.body == b"here"
    assert bing.requests == [path]


@pytest.mark.parametrize(
    ("rung", "markup"),
    [
        ("item", '<a m="{m}" class="x iusc y">'),
        ("item", "<div class='iusc' m='{m}'></div>"),
        ("item", '<a class="iusc" data-m="{m}">'),
        ("item", '<a class=iusc href="?a=b" m="{m}" />'),
        ("item", '<A CLASS="iusc"\n M = "{m}">'),
        ("item", "<![weird[x]><a class=iusc m='{m}'>"),
        ("item", '<a class="iusc" m="{m}" href="{link}">'),
        ("attribute", '<a class="iusc" m="{{" data-x="{m}">'),
        ("attribute", '<div class="newGrid" data-item="{m}">'),
        ("attribute", '<a class="iusc" m="{{" data-x="{m}" href="{link}">'),
        ("link", '<a class="iusc" href="{link}">'),
        ("link", '<a class="iusc" m="{{" href="{link}">'),
        ("link", '<a class="tile" href="{link}">'),
        ("link", "<a class=tile href='https://www.bing.com{link}&amp;simid=1#x'>"),
        ("text", "<script>var items = [{raw}]</script>"),
        ("text", "<script>var items = {{a: [{raw}, {raw}]}}"),
        ("text", '<a class="iusc" m="{raw}">'),  # quotes that are not escaped
        ("text", "<!-- {m} -->"),
        ("text", '<a class="iusc" m="{m}'),  # the page ends amid an item
        ("text", '<a class="iusc" title="&#' + "9" * 5_000 + ';" m="{m}">'),
    ],
)
def test_item_is_found_in_changed_markup(rung: str, markup: str) -> None:
    page = parse_page(markup.format(m=QUOTED, raw=RAW, link=LINK))
    assert [result.url for result in page.results] == [URL]
    assert (page.rung, page.num_items) == (rung, 1)


@pytest.mark.parametrize(
    "damaged",
    [
        "{",
        "[]",
        "null",
        '{"murl": 5}',
        '{"murl": null}',
        '{"murl": "ftp://h/x"}',
        '{"murl": "http://h.example:99999/x"}',
        '{"murl": "http://\\ud800.example/"}',
        '{"t": "x"}',
        '{"murl": "http://h.example/x.jpg',
        "[" * 9999,
        '{"a":' * 9999,
        '{"n": ' + "9" * 5_000 + "}",
        '{"murl": {"murl": []}}',
    ],
)
def test_damaged_item_does_not_cost_the_good_ones(damaged: str) -> None:
    good = page_of([item(f"http://h.example/{number}.jpg") for number in range(3)], next_first=5)
    broken = f'<a class="iusc" m="{html.escape(damaged)}"></a>'
    before, after = good.split("</li>", 1)
    page = parse_page(f"{before}{broken}{after}")
    assert [result.url[-5:] for result in page.results] == ["0.jpg", "1.jpg", "2.jpg"]
    assert (page.num_items, page.next_first, page.rung) == (4, 5, "item")


def test_item_whose_json_is_broken_is_read_by_its_link() -> None:
    page = parse_page(page_of([item(URL)]) + link_of(mediaurl="http://h.example/a%20b?c&d=1+1"))
    assert page.results[1] == SearchResult("http://h.example/a%20b?c&d=1+1")
    assert page.rung == "link", "the deepest"


@pytest.mark.timeout(30)  # it takes a tenth of a second, or else hours
@pytest.mark.parametrize("count", [1, 50_000])
@pytest.mark.parametrize(
    "text",
    ["", "<a ", "<a m='", '<a class="iusc" m="', "<!--", "</", '"murl":"', "<", "<![weird[", "\0"],
)
def test_nonsense_is_an_empty_page_in_no_time(text: str, count: int) -> None:
    assert parse_page(text * count).results == []


def test_size_stands_in_the_link() -> None:
    found = parse_page(link_of(mediaurl=URL, expw=3442, exph="2972")).results[0]
    assert (found.width, found.height) == (3442, 2972)
    sides = ["", "0", "-5", "9999999", "٣", "1e3"]
    page = "".join(link_of(mediaurl=f"{URL}?{side}", expw=side, exph="10") for side in sides)
    results = parse_page(page).results
    assert [(result.width, result.height) for result in results] == [(0, 0)] * len(sides)


def with_text(number: int, text: str, href: str = "/x") -> str:
    fields = html.escape(json.dumps(item(f"http://h.example/{number}.jpg")))
    return (
        f'<li><a class="iusc" m="{fields}" href="{href}"></a>'
        f'<div class="img_info"><span class="nowrap">{text}</span></div></li>'
    )


def test_size_may_stand_in_the_text_below() -> None:
    page = (
        with_text(1, "3442 x 2972 &#183; png")
        + with_text(2, "12 x 34 · jpeg", "/x?expw=640&amp;exph=480")
        + with_text(3, "4 x 6 photo frames")
        + '<li class="other"><span>70 x 80 · gif</span></li>'
        + with_text(4, "1×2 &middot; webp")
        + with_text(5, "no size")
        + '<a class="iusc" m="{"></a><span>70 x 80 · gif</span>'  # of an unreadable neighbour
    )
    sizes = [(result.width, result.height) for result in parse_page(page).results]
    assert sizes == [(3442, 2972), (640, 480), (0, 0), (1, 2), (0, 0)]


def test_only_a_valid_digest_is_read() -> None:
    assert parse_page(page_of([item(URL, md5=DIGEST.upper())])).results[0].md5 == DIGEST
    wrong = [DIGEST[1:], DIGEST + "0", "z" * 32, f"{DIGEST}\n"]
    page = page_of([item(f"{URL}?{md5}", md5=md5) for md5 in wrong])
    assert [result.md5 for result in parse_page(page).results] == [""] * len(wrong)


def test_title_is_one_printable_line() -> None:
    titles = {
        "\ue000Red\ue001  panda\n on a\ttree ": "Red panda on a tree",
        "a \x1b[31mred\x00 one\u202e": "a [31mred one",
        "half a \ud83c pair": "half a  pair",
        "寿司 🍣 ‏صورة": "寿司 🍣 صورة",
        "می‌خواهم": "می‌خواهم",
    }
    page = page_of([item(f"{URL}?{number}", t=title) for number, title in enumerate(titles)])
    assert [result.title for result in parse_page(page).results] == list(titles.values())


def test_page_names_the_offset_of_the_next_one() -> None:
    offsets = {
        "/images/async?q=x&amp;first=37&amp;count=35": 37,
        "http://elsewhere.example/?first=40": 40,
        "?first=37&first=": 37,
    }
    offsets |= dict.fromkeys(("?first=x", "?first=-3", "?first=99999999", "", "http://["))
    for url, offset in offsets.items():
        page = f'<div class="dgControl" data-nextUrl="{url}">{page_of([item(URL)])}</div>'
        assert parse_page(page).next_first == offset, url


ENCODINGS: list[tuple[bytes, str, str]] = [  # what stands before, the encoding, the title
    (b"", "utf-8", "Crème 寿司"),
    (b"", "utf-8-sig", "Crème 寿司"),
    (b"", "utf-16", "Crème 寿司"),
    (b"<meta charset=gb18030>", "gb18030", "Crème 寿司"),
    (b'<meta content="text/html; charset=Shift_JIS">', "cp932", "寿司"),
    (b"<meta charset='windows-1252'>", "cp1252", "Crème"),
    (b"<meta charset=windows-0>", "latin-1", "Cr\ufffdme"),
    (b"<meta charset=unicode_escape>", "latin-1", "Cr\ufffdme"),
    (b"", "latin-1", "Cr\ufffdme"),
]


@pytest.mark.parametrize(("before", "encoding", "title"), ENCODINGS)
def test_page_in_another_encoding_is_read(before: bytes, encoding: str, title: str) -> None:
    written = title.replace("\ufffd", "è")
    items = [item(URL, t=written), item(f"http://h.example/{written}.jpg")]
    quoted = [html.escape(json.dumps(fields, ensure_ascii=False)) for fields in items]
    page = "".join(f'<a class="iusc" m="{fields}">' for fields in quoted)
    found = parse_page(decode_page(before + page.encode(encoding))).results
    assert (found[0].url, found[0].title) == (URL, title)
    assert len(found) == (1 if "\ufffd" in title else 2), "a URL with a lost byte is not requested"


NOISE = [
    "<", ">", "</", "<!--", "-->", "<![", "]]>", "<!", "<?php", "&", "&quot", "&#", "&#x110000;",
    '"', "'", "=", "{", "}", "<li>", "</ul>", "<a class=iusc", ' m="{', "<div data-nextUrl=",
    '<a class="iusc" m="{&quot;murl&quot;:&quot;', "\ud800", "寿司", "12 x 34 · png",
    "<svg/onload>", "\0", '"murl":"', 'murl&quot;:&quot;http://[',
    '<a href="?mediaurl=http%3a%2f%2f%00&expw=1&exph=2">',
    "<script>", "<style>", "<title>", "<textarea>", "<plaintext>", "captcha", "\\", "\\u0026",
]  # fmt: skip


def noise(dice: random.Random) -> str:
    parts = dice.choices(NOISE, k=dice.randrange(12))
    letters = "".join(chr(dice.randrange(0x3000)) for _ in range(dice.randrange(8)))
    return "".join([*parts, letters])


def test_good_items_survive_random_text_between_them() -> None:
    dice = random.Random(0)
    urls = [f"http://h.example/{number}.jpg?a=1&b={number}" for number in range(5)]
    items = [html.escape(json.dumps(item(url))) for url in urls]
    for _ in range(200):
        page = "".join(f'{noise(dice)}<a class="iusc" m="{fields}">' for fields in items)
        assert set(urls) <= set(urls_of(page + noise(dice)))


def test_page_cut_or_overwritten_anywhere_gives_what_is_whole() -> None:
    dice = random.Random(0)
    urls = [f"http://h.example/{number}.jpg" for number in range(6)]
    whole = page_of([item(url) for url in urls], next_first=7)
    for _ in range(120):
        place = dice.randrange(len(whole))
        cut = whole[:place]
        num_whole = sum(f"{url}&quot;" in cut for url in urls)
        assert urls_of(cut) == urls[:num_whole]
        overwritten = cut + noise(dice) + whole[place + 40 :]
        assert len(set(urls) & set(urls_of(overwritten))) >= len(urls) - 2


def test_random_bytes_never_make_the_reader_fail() -> None:
    dice = random.Random(0)
    for _ in range(80):
        body = bytearray(page_of([item(URL)]).encode())
        for _ in range(dice.randrange(60)):
            body[dice.randrange(len(body))] = dice.randrange(256)
        body[:2] = dice.choice([b"", b"\xff\xfe", b"\xfe\xff", b"\xef\xbb\xbf", bytes(body[:2])])
        parse_page(decode_page(bytes(body)))
