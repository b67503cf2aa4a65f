"""The run: exactly as many good images as asked for, each once, and every loss named."""

import io
import itertools
import random
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from fake_bing import FakeBing, draw, item, page_of
from filling import images_in
from PIL import Image
from web_host import drip, in_turn, later, redirect, send

from imagesieve import images
from imagesieve.collecting import run as collecting_run
from imagesieve.collecting.bing.queries import Query
from imagesieve.collecting.bing.search import ImageSearch
from imagesieve.collecting.journal import JOURNAL_NAME, Entry, read_entries
from imagesieve.collecting.outcome import Outcome
from imagesieve.collecting.targets import CollectSettings, Side, Target
from imagesieve.web.fetch import FetchSettings

Run = Callable[..., Outcome]
FETCH = FetchSettings(allow_private_hosts=True, total_seconds=5.0, grace_seconds=0.3)
# Most tests are not about politeness, and all their images may come from one host.
HOSTS = {"max_connections": 64, "seconds_between_requests": 0.0}


@pytest.fixture
def run(image_search: ImageSearch, tmp_path: Path) -> Run:
    """Return a function that fills `tmp_path / "class"`."""

    def run_once(limit: int, queries: tuple[str, ...] = ("x",), **changes: object) -> Outcome:
        usual = {"threads": 8, "fetch": FETCH, **HOSTS, "quiet": True}
        settings = CollectSettings(**{**usual, **changes})
        side = Side(tmp_path / "class", limit)
        target = Target("x", tuple(Query(text) for text in queries), side)
        return collecting_run.collect_all([target], image_search, settings)[0]

    return run_once


def journal_of(folder: Path) -> list[Entry]:
    return list(read_entries(folder / JOURNAL_NAME))


@pytest.mark.parametrize("limit", [1, 7, 35, 36, 120])
def test_limit_is_exact(bing: FakeBing, run: Run, tmp_path: Path, limit: int) -> None:
    bing.add_images(limit + 30)
    done = run(limit)
    assert (done.kept, done.exit_code) == (limit, 0)
    assert len(images_in(tmp_path / "class")) == limit


def test_limit_is_exact_though_a_third_of_the_links_fail(
    bing: FakeBing, run: Run, tmp_path: Path
) -> None:
    for number in range(70):
        bing.add(f"/{number}.jpg", draw(number) if number % 3 else send(b"", 404))
    done = run(35)
    assert len(images_in(tmp_path / "class")) == done.kept == 35
    assert 0 < done.failed["http status 404"] <= 24


def test_few_requests_are_made_for_a_small_limit(bing: FakeBing, run: Run) -> None:
    bing.add_images(35)
    run(1)
    assert len(bing.image_requests) <= 3
    assert len(bing.page_requests) == 1


def test_every_file_is_whole_and_named_after_its_content(
    bing: FakeBing, run: Run, tmp_path: Path
) -> None:
    bing.add_images(5)
    run(5)
    for path in images_in(tmp_path / "class"):
        assert images.decode(path).sha256.startswith(path.stem)


@pytest.mark.parametrize("image_format", sorted(images.FORMATS))
def test_extension_comes_from_the_content(
    bing: FakeBing, run: Run, tmp_path: Path, image_format: str
) -> None:
    bing.add("/a.jpg", send(draw(0, image_format), Content_Type="image/jpeg"))
    run(1)
    assert images_in(tmp_path / "class")[0].suffix == images.EXTENSIONS[image_format]


def test_ampersand_in_a_url_arrives_as_one(bing: FakeBing, run: Run) -> None:
    bing.add("/a?w=1&h=2&name=a%26b", draw(0))
    assert run(1).kept == 1
    assert bing.image_requests == ["/a?w=1&h=2&name=a%26b"]


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (draw(0)[:-40], "truncated"),
        (draw(0)[:-1], "truncated"),
        (b"<html>hello</html>", "not an image"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "not an image"),
        (b"", "empty"),
        (draw(0, size=(96, 63)), "too small"),
        (draw(0, "PNG")[:60], "truncated"),
        (send(b"gone", 404), "http status 404"),
        (redirect("/elsewhere"), "http status 404"),
        (drip(b"HTTP/1.0 200 OK\r\n\r\n" + draw(0)[:50]), "too slow"),
    ],
)
def test_useless_answer_is_counted_by_its_reason(
    bing: FakeBing, run: Run, tmp_path: Path, answer: bytes, reason: str
) -> None:
    url = bing.add("/a.jpg", answer)
    bing.add("/good.jpg", draw(1))
    done = run(2)
    assert (done.kept, dict(done.failed), done.exit_code) == (1, {reason: 1}, 3)
    assert len(images_in(tmp_path / "class")) == 1
    failure = next(entry for entry in journal_of(tmp_path / "class") if entry["url"] == url)
    assert (failure["status"], failure["reason"]) == ("failed", reason)


def test_slow_link_does_not_hold_up_the_others(bing: FakeBing, run: Run) -> None:
    bing.add("/slow.jpg", later(send(draw(99)), 30.0))
    bing.add_images(10)
    start = time.monotonic()
    assert run(10).kept == 10
    assert time.monotonic() - start < 4.0  # the slow one alone would take its 5 s deadline


def test_same_bytes_at_two_urls_are_saved_once(bing: FakeBing, run: Run, tmp_path: Path) -> None:
    for path in ("/a.jpg", "/b.jpg", "/c.jpg"):
        bing.add(path, draw(0))
    done = run(3)
    assert (done.kept, done.duplicates, done.exit_code) == (1, 2, 3)
    assert len(images_in(tmp_path / "class")) == 1


def test_same_digest_by_bing_needs_no_second_request(bing: FakeBing, run: Run) -> None:
    for path in ("/a.jpg", "/b.jpg"):
        bing.add(path, draw(0), md5="f" * 32)
    done = run(2, threads=1)
    assert (done.kept, done.duplicates) == (1, 1)
    assert bing.image_requests == ["/a.jpg"]


def test_rerun_with_a_larger_limit_fetches_only_the_rest(bing: FakeBing, run: Run) -> None:
    bing.add_images(20)
    run(20)
    bing.requests.clear()
    bing.add_images(10, start=20)
    more = run(30)
    assert (more.before, more.kept, more.known, more.duplicates) == (20, 10, 20, 0)
    assert sorted(bing.image_requests) == sorted(f"/{number}.jpg" for number in range(20, 30))


@pytest.mark.parametrize("damage", [Path.unlink, lambda path: path.write_bytes(b"x" * 99)])
def test_lost_or_damaged_file_is_fetched_again(
    bing: FakeBing, run: Run, tmp_path: Path, damage: Callable[[Path], object]
) -> None:
    bing.add_images(5)
    run(5)
    victim = images_in(tmp_path / "class")[2]
    damage(victim)
    again = run(5)
    assert (again.before, again.kept, again.unusable) == (4, 1, [])
    images.decode(victim)


def test_private_images_are_refused_unless_allowed(bing: FakeBing, run: Run) -> None:
    bing.add_images(3)
    done = run(3, fetch=FetchSettings())
    assert (done.kept, dict(done.failed)) == (0, {"private address": 3})
    assert bing.image_requests == []


def test_every_later_url_of_a_digest_is_tried_until_one_is_good(bing: FakeBing, run: Run) -> None:
    for number in range(4):
        answer = send(b"", 404) if number < 2 else send(draw(7))
        bing.add(f"/{number}.jpg", answer, md5="a" * 32)
    done = run(2)
    assert (done.kept, done.failed["http status 404"], done.duplicates) == (1, 2, 1)
    assert bing.image_requests == ["/0.jpg", "/1.jpg", "/2.jpg"]


def test_an_image_too_small_by_bings_own_word_is_not_asked_for(bing: FakeBing, run: Run) -> None:
    href = "/images/search?mediaurl=x&amp;exph=50&amp;expw=400"
    page = page_of([item(bing.url + "/a.jpg")]).replace(
        'href="/images/search?q=x"', f'href="{href}"'
    )
    bing.search_answer = in_turn(send(page.encode()), send(page_of([]).encode()))
    assert dict(run(1).failed) == {"too small": 1}
    assert bing.image_requests == []


def test_the_larger_of_two_copies_stays(bing: FakeBing, run: Run, tmp_path: Path) -> None:
    buffer = io.BytesIO()
    Image.open(io.BytesIO(draw(3, size=(960, 720)))).resize((320, 240)).save(buffer, "JPEG")
    bing.add("/small.jpg", buffer.getvalue())
    bing.add("/large.jpg", draw(3, size=(960, 720)))
    done = run(2, threads=1)
    assert (done.kept, done.enlarged, done.exit_code) == (1, 1, 3)
    assert run(2, threads=1).known == 2, "the replaced one is not asked for again"
    (kept,) = images_in(tmp_path / "class")
    assert images.decode(kept).width == 960
    bing.requests.clear()
    assert run(1).before == 1
    assert bing.requests == []


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
def test_a_passing_failure_is_tried_again(bing: FakeBing, run: Run, status: int) -> None:
    bing.add("/a.jpg", in_turn(send(b"", status), send(draw(0))))
    done = run(1)
    assert (done.kept, done.failed.total()) == (1, 0)
    assert bing.image_requests == ["/a.jpg", "/a.jpg"]


@pytest.mark.parametrize("status", [400, 401, 403, 404, 410])
def test_a_lasting_failure_is_not_tried_again(bing: FakeBing, run: Run, status: int) -> None:
    bing.add("/a.jpg", send(b"", status))
    assert dict(run(1).failed) == {f"http status {status}": 1}
    assert run(1).known == 1
    assert bing.image_requests == ["/a.jpg"]
    assert dict(run(1, retries_failed=True).failed) == {f"http status {status}": 1}
    assert bing.image_requests == ["/a.jpg", "/a.jpg"]


def test_retry_after_is_respected(bing: FakeBing, run: Run) -> None:
    bing.add("/a.jpg", in_turn(send(b"", 429, Retry_After="1"), send(draw(0))))
    assert run(1).kept == 1
    first, second = (visit.started for visit in bing.visits if visit.path == "/a.jpg")
    assert second - first >= 0.95


def test_a_host_that_asks_for_a_long_wait_is_left_alone(bing: FakeBing, run: Run) -> None:
    bing.add("/a.jpg", send(b"", 503, Retry_After="3600"))
    assert dict(run(1).failed) == {"http status 503": 1}
    assert bing.image_requests == ["/a.jpg"]


def test_a_short_body_is_tried_again_and_then_given_up(bing: FakeBing, run: Run) -> None:
    bing.add("/a.jpg", send(draw(0), 200, Content_Length="99999"))
    assert dict(run(1).failed) == {"connection lost": 1}
    assert bing.image_requests == ["/a.jpg"] * 3
    assert run(1).known == 0  # it may pass until the next run


def test_a_host_that_never_answers_is_given_up(bing: FakeBing, run: Run) -> None:
    for number in range(12):
        bing.add(f"/{number}.jpg", later(send(draw(number)), 9.0), host=1)
    bing.add("/good.jpg", draw(50), host=2)
    fetch = FetchSettings(allow_private_hosts=True, total_seconds=0.4)
    done = run(13, fetch=fetch, max_connections=2)
    assert (done.kept, done.failed["timeout"] + done.failed["host is down"]) == (1, 12)
    assert done.failed["host is down"] >= 5


def test_politeness_holds_while_a_folder_is_filled(bing: FakeBing, run: Run) -> None:
    for number in range(12):
        bing.add(f"/{number}.jpg", later(send(draw(number)), 0.15), host=1 + number % 2)
    assert run(12, max_connections=2, seconds_between_requests=0.1).kept == 12
    for number in (1, 2):
        visits = [visit for visit in bing.visits if visit.host == f"127.0.1.{number}"]
        starts = sorted(visit.started for visit in visits)
        assert len(visits) == 7  # robots.txt once
        assert min(b - a for a, b in itertools.pairwise(starts)) > 0.06
        for start in starts:
            assert sum(visit.started <= start < visit.ended for visit in visits) <= 2


def test_robots_txt_is_requested_once_and_respected(bing: FakeBing, run: Run) -> None:
    bing.robots["127.0.1.1"] = send(b"User-agent: *\nDisallow: /private/\n")
    for number in range(6):
        folder = "/private" if number % 2 else ""
        bing.add(f"{folder}/{number}.jpg", draw(number), host=1)
    done = run(6)
    assert (done.kept, dict(done.failed)) == (3, {"robots.txt": 3})
    assert bing.requests.count("/robots.txt") == 1
    assert run(6, follows_robots=False).kept == 3


def test_an_image_whose_header_forbids_its_use_is_not_kept(bing: FakeBing, run: Run) -> None:
    bing.add("/a.jpg", send(draw(0), X_Robots_Tag="noai"), host=1)
    assert dict(run(1).failed) == {"opted out": 1}


def test_queries_take_turns(bing: FakeBing, run: Run, tmp_path: Path) -> None:
    for query in ("a", "b", "c"):
        bing.add_images(60, start=100 * ord(query), query=query)
    done = run(30, queries=("a", "b", "c"), threads=2)
    assert done.kept == 30
    shares = [entry["query"] for entry in journal_of(tmp_path / "class")]
    assert all(6 <= shares.count(query) <= 14 for query in "abc")


def test_a_query_that_runs_dry_leaves_its_share_to_the_others(bing: FakeBing, run: Run) -> None:
    bing.add_images(3, query="a")
    bing.add_images(60, start=100, query="b")
    assert run(30, queries=("a", "b")).kept == 30


def test_the_run_ends_with_its_time(bing: FakeBing, run: Run) -> None:
    for number in range(20):
        bing.add(f"/{number}.jpg", later(send(draw(number)), 8.0), host=1 + number)
    start = time.monotonic()
    done = run(20, seconds=0.7)
    assert time.monotonic() - start < 4
    assert (done.exit_code, done.is_out_of_time) == (3, True)
    assert "the time is over" in done.explanation


def test_images_can_be_scaled_down_and_written_as_jpeg(
    bing: FakeBing, run: Run, tmp_path: Path
) -> None:
    bing.add("/a.png", draw(0, "PNG", size=(900, 600)))
    assert run(1, max_side=300, file_format="jpg").kept == 1
    (path,) = images_in(tmp_path / "class")
    kept = images.decode(path)
    assert (path.suffix, kept.width, kept.height, kept.mode) == (".jpg", 300, 200, "RGB")
    bing.requests.clear()
    assert run(1, max_side=300, file_format="jpg").before == 1
    assert bing.requests == []


def test_the_journal_records_where_an_image_came_from(
    bing: FakeBing, run: Run, tmp_path: Path
) -> None:
    url = bing.add("/a.jpg", redirect("/b.jpg"), md5="b" * 32, purl="http://p.example/", t="Ünï")
    bing.routes["/b.jpg"] = send(draw(0))
    run(1)
    (entry,) = journal_of(tmp_path / "class")
    (path,) = images_in(tmp_path / "class")
    assert entry["url"] == url
    assert entry["final_url"] == bing.url + "/b.jpg"
    assert (entry["page_url"], entry["title"]) == ("http://p.example/", "Ünï")
    assert (entry["status"], entry["path"], entry["rank"]) == ("kept", path.name, 1)
    assert entry["sha256"].startswith(path.stem)
    assert (entry["width"], entry["height"], entry["bytes"]) == (96, 80, path.stat().st_size)


def test_many_downloads_run_at_once_on_few_threads(bing: FakeBing, run: Run) -> None:
    before = {thread.name for thread in threading.enumerate()}
    names: set[str] = set()

    def watch(answer: object) -> Callable[[object], None]:
        def watched(handler: object) -> None:
            names.update(thread.name for thread in threading.enumerate())
            answer(handler)

        return watched

    for number in range(200):
        bing.add(f"/{number}.jpg", watch(later(send(draw(number)), 0.1)), host=1 + number % 40)
    assert run(200, threads=32, max_connections=2, seconds_between_requests=0.1).kept == 200
    visits = [visit for visit in bing.visits if visit.path != "/robots.txt"]
    busiest = max(
        sum(other.started <= visit.started < other.ended for other in visits) for visit in visits
    )
    assert 16 <= busiest <= 32 + 4  # a host may note the end of one after the start of the next
    ours = {name for name in names if "process_request_thread" not in name}
    servers = {name for name in ours if "serve_forever" in name}
    assert len(ours - servers - before) <= 32 + 4
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("fetch-")]


@pytest.mark.parametrize("seed", range(2))
def test_random_bytes_are_never_kept(bing: FakeBing, run: Run, tmp_path: Path, seed: int) -> None:
    dice = random.Random(seed)
    for number in range(40):
        data = bytearray(draw(number, dice.choice(sorted(images.FORMATS))))
        start = dice.randrange(len(data))
        data[start : start + dice.randrange(1, 200)] = dice.randbytes(dice.randrange(200))
        bing.add(f"/{number}", bytes(data), host=1 + number % 40)
        bing.add(f"/random{number}", dice.randbytes(dice.randrange(3000)), host=1 + number % 40)
    run(80)
    for path in images_in(tmp_path / "class") if (tmp_path / "class").exists() else []:
        images.decode(path)


def test_a_redirect_that_fails_is_no_failure_of_the_first_host(
    bing: FakeBing, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(collecting_run, "_MAX_ATTEMPTS", 1)
    with FakeBing() as gone:
        pass
    for number in range(12):
        bing.add(f"/{number}.jpg", redirect(f"{gone.url}/{number}.jpg"))
    bing.add_images(12, start=20, num_hosts=0)
    assert run(24, threads=1).kept == 12
