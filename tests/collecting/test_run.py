"""The run: exactly as many good images as asked for, each once, and every loss named."""

import io
import itertools
import random
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from fake_bing import FakeBing, draw, item, page_of
from filling import images_in
from painted import encode
from PIL import Image
from web_host import Answer, Handler, drip, in_turn, later, redirect, send

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


@pytest.mark.parametrize(("limit", "num_dead"), [(1, 0), (35, 0), (36, 20)])
def test_limit_is_exact(
    bing: FakeBing, run: Run, tmp_path: Path, limit: int, num_dead: int
) -> None:
    bing.add_images(limit + 30)
    for number in range(num_dead):
        bing.routes[f"/{2 * number}.jpg"] = send(b"", 404)
    done = run(limit)
    assert (done.kept, done.exit_code) == (limit, 0)
    assert len(images_in(tmp_path / "class")) == limit
    assert len(bing.image_requests) <= 2 * limit + 1 + num_dead
    assert len(bing.page_requests) == 1 or limit > 1


def test_files_are_whole_and_named_after_their_content(
    bing: FakeBing, run: Run, tmp_path: Path
) -> None:
    for number, name in enumerate(images.FORMATS):
        bing.add(f"/{number}.jpg", send(draw(number, name), Content_Type="image/jpeg"))
    run(len(images.FORMATS))
    kept = {path: images.decode(path) for path in images_in(tmp_path / "class")}
    assert {image.format for image in kept.values()} == set(images.FORMATS)
    for path, image in kept.items():
        assert path.name == image.sha256[:16] + images.EXTENSIONS[image.format]


USELESS = [
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
]


def test_useless_answers_are_counted_by_their_reasons(
    bing: FakeBing, run: Run, tmp_path: Path
) -> None:
    reasons = {bing.add(f"/{number}", row[0]): row[1] for number, row in enumerate(USELESS)}
    bing.add("/good.jpg", draw(1))
    done = run(99)
    assert (done.kept, done.failed, done.exit_code) == (1, Counter(reasons.values()), 3)
    assert len(images_in(tmp_path / "class")) == 1
    failed = [entry for entry in journal_of(tmp_path / "class") if entry["status"] == "failed"]
    assert {entry["url"]: entry["reason"] for entry in failed} == reasons


def test_slow_link_does_not_hold_up_the_others(bing: FakeBing, run: Run) -> None:
    bing.add("/slow.jpg", later(send(draw(99)), 30.0))
    bing.add_images(10)
    start = time.monotonic()
    assert run(10).kept == 10
    assert time.monotonic() - start < 4.0  # the slow one alone would take its 5 s deadline


def test_same_bytes_at_two_urls_are_saved_once(bing: FakeBing, run: Run, tmp_path: Path) -> None:
    (tmp_path / "class").mkdir()
    (tmp_path / "class" / "holiday.jpg").write_bytes(draw(0))
    for path, number in (("/mine.jpg", 0), ("/a.jpg", 1), ("/b.jpg", 1)):
        bing.add(path, draw(number))
    done = run(4)  # which these cannot fill, so that all of them are tried
    assert (done.before, done.kept, done.duplicates, done.exit_code) == (1, 1, 2, 3)
    assert len(images_in(tmp_path / "class")) == 2


def test_rerun_with_a_larger_limit_fetches_only_the_rest(bing: FakeBing, run: Run) -> None:
    bing.add_images(20)
    run(20)
    bing.requests.clear()
    bing.add_images(10, start=20)
    more = run(30)
    assert (more.before, more.kept, more.known, more.duplicates) == (20, 10, 20, 0)
    assert sorted(bing.image_requests) == sorted(f"/{number}.jpg" for number in range(20, 30))


def test_lost_or_damaged_file_is_fetched_again(bing: FakeBing, run: Run, tmp_path: Path) -> None:
    bing.add_images(5)
    run(5)
    lost, damaged = images_in(tmp_path / "class")[2:4]
    lost.unlink()
    damaged.write_bytes(b"x" * 99)
    again = run(5)
    assert (again.before, again.kept, again.unusable) == (3, 2, [])
    for path in (lost, damaged):
        images.decode(path)


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
    large = draw(3, size=(960, 720))
    bing.add("/small.jpg", encode(Image.open(io.BytesIO(large)).resize((320, 240))))
    bing.add("/large.jpg", large)
    done = run(2, threads=1)
    assert (done.kept, done.enlarged, done.exit_code) == (1, 1, 3)
    assert run(2, threads=1).known == 2, "the replaced one is not asked for again"
    (kept,) = images_in(tmp_path / "class")
    assert images.decode(kept).width == 960
    bing.requests.clear()
    assert run(1).before == 1
    assert bing.requests == []


def test_a_passing_failure_is_tried_again(bing: FakeBing, run: Run) -> None:
    statuses = (408, 429, 500, 502, 503, 504)
    for number, status in enumerate(statuses):
        bing.add(f"/{status}", in_turn(send(b"", status), send(draw(number))))
    done = run(len(statuses))
    assert (done.kept, done.failed.total()) == (len(statuses), 0)
    assert sorted(bing.image_requests) == sorted(f"/{status}" for status in statuses * 2)


def test_a_lasting_failure_is_not_tried_again(bing: FakeBing, run: Run) -> None:
    statuses = (400, 401, 403, 404, 410)
    paths = [bing.add(f"/{status}", send(b"", status))[len(bing.url) :] for status in statuses]
    failures = {f"http status {status}": 1 for status in statuses}
    assert dict(run(9).failed) == failures
    assert run(9).known == len(statuses)
    assert sorted(bing.image_requests) == paths
    assert dict(run(9, retries_failed=True).failed) == failures
    assert sorted(bing.image_requests) == sorted(paths * 2)


def test_retry_after_is_respected_within_reason(bing: FakeBing, run: Run) -> None:
    bing.add("/a.jpg", in_turn(send(b"", 429, Retry_After="1"), send(draw(0))))
    bing.add("/never.jpg", send(b"", 503, Retry_After="3600"))
    done = run(2)
    assert (done.kept, dict(done.failed)) == (1, {"http status 503": 1})
    first, second = (visit.started for visit in bing.visits if visit.path == "/a.jpg")
    assert second - first >= 0.95
    assert bing.image_requests.count("/never.jpg") == 1


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


def test_what_sites_forbid_is_respected(bing: FakeBing, run: Run) -> None:
    bing.robots["127.0.1.1"] = send(b"User-agent: *\nDisallow: /private/\n")
    for number in range(6):
        folder = "/private" if number % 2 else ""
        bing.add(f"{folder}/{number}.jpg", draw(number), host=1)
    bing.add("/a.jpg", send(draw(9), X_Robots_Tag="noai"), host=2)
    done = run(9)
    assert (done.kept, dict(done.failed)) == (3, {"robots.txt": 3, "opted out": 1})
    assert bing.requests.count("/robots.txt") == 2
    assert run(9, follows_robots=False).kept == 3


def test_queries_take_turns_until_they_run_dry(bing: FakeBing, run: Run, tmp_path: Path) -> None:
    for query, count in (("a", 60), ("b", 3), ("c", 60)):
        bing.add_images(count, start=100 * ord(query), query=query)
    assert run(30, queries=("a", "b", "c"), threads=2).kept == 30
    shares = [entry["query"] for entry in journal_of(tmp_path / "class")]
    assert shares.count("b") == 3
    assert all(6 <= shares.count(query) <= 21 for query in "ac")  # ten in a turn


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
    assert run(1, max_side=300, file_format="jpg").before == 1
    assert bing.image_requests == ["/a.png"]


def test_the_journal_records_where_an_image_came_from(
    bing: FakeBing, run: Run, tmp_path: Path
) -> None:
    url = bing.add("/a.jpg", redirect("/b.jpg"), md5="b" * 32, purl="http://p.example/", t="Ünï")
    bing.routes["/b.jpg"] = send(draw(0))
    run(1)
    (entry,) = journal_of(tmp_path / "class")
    (path,) = images_in(tmp_path / "class")
    expected = {"url": url, "final_url": bing.url + "/b.jpg", "page_url": "http://p.example/"}
    expected |= {"title": "Ünï", "status": "kept", "path": path.name, "rank": 1}
    expected |= {"sha256": images.decode(path).sha256, "bytes": path.stat().st_size}
    assert expected.items() <= entry.items()
    assert (entry["width"], entry["height"]) == (96, 80)


def test_many_downloads_run_at_once_on_few_threads(bing: FakeBing, run: Run) -> None:
    before = {thread.name for thread in threading.enumerate()}
    names: set[str] = set()

    def watch(answer: Answer) -> Answer:
        def watched(handler: Handler) -> None:
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
    servers = {name for name in names if "process_request" in name or "serve_forever" in name}
    assert len(names - servers - before) <= 32 + 4
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("fetch-")]


def test_random_bytes_are_never_kept(bing: FakeBing, run: Run, tmp_path: Path) -> None:
    dice = random.Random(0)
    bing.add("/good.jpg", draw(99))
    for number in range(40):
        data = bytearray(draw(number, dice.choice(sorted(images.FORMATS))))
        start = dice.randrange(len(data))
        data[start : start + dice.randrange(1, 200)] = dice.randbytes(dice.randrange(200))
        bing.add(f"/{number}", bytes(data), host=1 + number)
        bing.add(f"/random{number}", dice.randbytes(dice.randrange(3000)), host=1 + number)
    run(81)
    for path in images_in(tmp_path / "class"):
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
