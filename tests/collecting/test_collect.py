"""The run: exactly as many good pictures as asked for, each once, and every loss named."""

import json
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from fake_bing import FakeBing, draw, drip, in_turn, later, page_of, redirect, send

from classifier import images
from classifier.collecting import collect, folders, outcome
from classifier.collecting.collect import CollectSettings
from classifier.collecting.fetch import FetchSettings
from classifier.collecting.journal import JOURNAL_NAME, Journal
from classifier.collecting.outcome import Outcome
from classifier.collecting.search import BlockedError, ImageSearch
from classifier.errors import OutputError, UsageError

Run = Callable[..., Outcome]
FETCH = FetchSettings(allow_private_hosts=True, total_seconds=5.0, grace_seconds=0.3)


@pytest.fixture
def run(image_search: ImageSearch, tmp_path: Path) -> Run:
    def run_once(limit: int, **changes: object) -> Outcome:
        settings = CollectSettings(
            **{"limit": limit, "threads": 8, "fetch": FETCH, "quiet": True, **changes}
        )
        return collect.collect("x", tmp_path / "class", image_search, settings)

    return run_once


def pictures_in(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if not path.name.startswith("."))


def journal_of(folder: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in (folder / JOURNAL_NAME).read_text().splitlines()]


@pytest.mark.parametrize("limit", [1, 7, 35, 36, 50])
def test_limit_is_exact(bing: FakeBing, run: Run, tmp_path: Path, limit: int) -> None:
    bing.add_pictures(80)
    done = run(limit)
    assert (done.kept, done.exit_code) == (limit, 0)
    assert len(pictures_in(tmp_path / "class")) == limit


def test_limit_is_exact_though_a_third_of_the_links_fail(
    bing: FakeBing, run: Run, tmp_path: Path
) -> None:
    for number in range(60):
        bing.add(f"/{number}.jpg", draw(number) if number % 3 else send(b"", 404))
    done = run(35)
    assert len(pictures_in(tmp_path / "class")) == done.kept == 35
    assert 0 < done.failed["http status 404"] <= 20


def test_few_requests_are_made_for_a_small_limit(bing: FakeBing, run: Run) -> None:
    bing.add_pictures(35)
    run(1)
    assert len(bing.picture_requests) <= 3
    assert len(bing.page_requests) == 1


def test_every_file_is_whole_and_named_after_its_content(
    bing: FakeBing, run: Run, tmp_path: Path
) -> None:
    bing.add_pictures(5)
    run(5)
    for path in pictures_in(tmp_path / "class"):
        assert images.decode(path).sha256.startswith(path.stem)


@pytest.mark.parametrize("picture_format", sorted(images.FORMATS))
def test_extension_comes_from_the_content(
    bing: FakeBing, run: Run, tmp_path: Path, picture_format: str
) -> None:
    bing.add("/a.jpg", send(draw(0, picture_format), Content_Type="image/jpeg"))
    run(1)
    assert pictures_in(tmp_path / "class")[0].suffix == images.EXTENSIONS[picture_format]


def test_ampersand_in_an_address_arrives_as_one(bing: FakeBing, run: Run) -> None:
    bing.add("/a?w=1&h=2&name=a%26b", draw(0))
    assert run(1).kept == 1
    assert bing.picture_requests == ["/a?w=1&h=2&name=a%26b"]


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (draw(0)[:-40], "truncated"),
        (draw(0)[:-1], "truncated"),
        (b"<html>hello</html>", "not a picture"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "not a picture"),
        (b"", "empty"),
        (draw(0, size=(96, 63)), "too small"),
        (draw(0, "PNG")[:60], "truncated"),
        (send(b"gone", 404), "http status 404"),
        (send(draw(0), 200, Content_Length="99999"), "connection lost"),
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
    assert len(pictures_in(tmp_path / "class")) == 1
    failure = next(entry for entry in journal_of(tmp_path / "class") if entry["url"] == url)
    assert (failure["status"], failure["reason"]) == ("failed", reason)


def test_slow_link_does_not_hold_up_the_others(bing: FakeBing, run: Run) -> None:
    bing.add("/slow.jpg", later(send(draw(99)), 30.0))
    bing.add_pictures(10)
    start = time.monotonic()
    assert run(10).kept == 10
    assert time.monotonic() - start < 4.0  # the slow one alone would take its 5 s deadline


def test_same_bytes_at_two_addresses_are_kept_once(
    bing: FakeBing, run: Run, tmp_path: Path
) -> None:
    for path in ("/a.jpg", "/b.jpg", "/c.jpg"):
        bing.add(path, draw(0))
    done = run(3)
    assert (done.kept, done.duplicates, done.exit_code) == (1, 2, 3)
    assert len(pictures_in(tmp_path / "class")) == 1


def test_same_digest_by_bing_needs_no_second_request(bing: FakeBing, run: Run) -> None:
    for path in ("/a.jpg", "/b.jpg"):
        bing.add(path, draw(0), md5="f" * 32)
    done = run(2, threads=1)
    assert (done.kept, done.duplicates) == (1, 1)
    assert bing.picture_requests == ["/a.jpg"]


def test_second_address_stands_in_when_the_first_is_dead(bing: FakeBing, run: Run) -> None:
    bing.add("/a.jpg", send(b"", 404), md5="f" * 32)
    bing.add("/b.jpg", draw(0), md5="f" * 32)
    assert run(1).kept == 1


def test_exhausted_results_are_short_not_failed(bing: FakeBing, run: Run) -> None:
    bing.add_pictures(40)
    done = run(100)
    assert (done.kept, done.exit_code, done.error) == (40, 3, None)


def test_rerun_of_a_full_folder_asks_nobody(bing: FakeBing, run: Run) -> None:
    bing.add_pictures(10)
    run(10)
    bing.requests.clear()
    again = run(10)
    assert (again.found, again.kept, again.exit_code) == (10, 0, 0)
    assert bing.requests == []


def test_rerun_with_a_larger_limit_fetches_only_the_rest(bing: FakeBing, run: Run) -> None:
    bing.add_pictures(20)
    run(20)
    bing.requests.clear()
    bing.add_pictures(10, start=20)
    more = run(30)
    assert (more.found, more.kept, more.duplicates) == (20, 10, 20)
    assert sorted(bing.picture_requests) == sorted(f"/{number}.jpg" for number in range(20, 30))


def test_lower_limit_deletes_nothing(bing: FakeBing, run: Run, tmp_path: Path) -> None:
    bing.add_pictures(5)
    run(5)
    assert run(2).exit_code == 0
    assert len(pictures_in(tmp_path / "class")) == 5


@pytest.mark.parametrize("damage", [Path.unlink, lambda path: path.write_bytes(b"x" * 99)])
def test_lost_or_damaged_file_is_fetched_again(
    bing: FakeBing, run: Run, tmp_path: Path, damage: Callable[[Path], object]
) -> None:
    bing.add_pictures(5)
    run(5)
    victim = pictures_in(tmp_path / "class")[2]
    damage(victim)
    again = run(5)
    assert (again.found, again.kept, again.unusable) == (4, 1, [])
    images.decode(victim)


def test_files_that_are_no_pictures_are_named_and_left_alone(
    bing: FakeBing, run: Run, tmp_path: Path
) -> None:
    (tmp_path / "class").mkdir()
    note = tmp_path / "class" / "notes.txt"
    note.write_text("mine")
    bing.add_pictures(2)
    assert run(2).unusable == [note]
    assert note.read_text() == "mine"


def test_picture_on_disk_is_not_kept_again(bing: FakeBing, run: Run, tmp_path: Path) -> None:
    (tmp_path / "class").mkdir()
    (tmp_path / "class" / "holiday.jpg").write_bytes(draw(0))
    bing.add_pictures(3)
    done = run(3)
    assert (done.found, done.kept, done.duplicates) == (1, 2, 1)


def test_pictures_found_before_a_block_are_kept(bing: FakeBing, run: Run) -> None:
    bing.add_pictures(35)
    page = send(page_of(bing.items, 36).encode())
    bing.search_answer = in_turn(page, send(b"", 429))
    done = run(100)
    assert (done.kept, done.exit_code) == (35, 4)
    assert isinstance(done.error, BlockedError)


def test_private_pictures_are_refused_unless_allowed(bing: FakeBing, run: Run) -> None:
    bing.add_pictures(3)
    done = run(3, fetch=FetchSettings())
    assert (done.kept, dict(done.failed)) == (0, {"private address": 3})
    assert bing.picture_requests == []


def test_unwritable_folder_ends_the_run_with_its_name(
    bing: FakeBing, run: Run, tmp_path: Path
) -> None:
    (tmp_path / "class").write_text("a file is in the way")
    bing.add_pictures(3)
    with pytest.raises(OutputError, match="class"):
        run(3)


def test_number_of_threads_is_fixed(bing: FakeBing, run: Run) -> None:
    seen: list[int] = []

    def watch(handler: object) -> None:
        seen.append(sum(thread.name.startswith("fetch-") for thread in threading.enumerate()))
        send(b"", 404)(handler)

    for number in range(60):
        bing.add(f"/{number}", watch)
    run(60, threads=4)
    assert max(seen) == 4
    assert not [name for name in threading.enumerate() if name.name.startswith("fetch-")]


def test_torn_journal_line_is_passed_over_and_not_glued_to(tmp_path: Path) -> None:
    with Journal(tmp_path) as journal:
        journal.add("http://h/1", "kept", sha256="a")
    with open(tmp_path / JOURNAL_NAME, "a") as file:
        file.write('{"url": "http://h/2", "sha')
    with Journal(tmp_path) as journal:
        journal.add("http://h/3\u2028", "kept", sha256="c")
        assert journal.known() == {"http://h/1": "a", "http://h/3\u2028": "c"}


@pytest.mark.parametrize(
    "query",
    [
        "a/b",
        "..",
        ".hidden",
        "CON",
        "nul.txt",
        "寿司" * 200,
        "🍣",
        "x. ",
        'a<>:"\\|?*b',
        "a\tb\0",
        "",
    ],
)
def test_folder_name_is_safe_and_inside(query: str, tmp_path: Path) -> None:
    path = tmp_path / folders.folder_name(query)
    assert path.resolve().parent == tmp_path.resolve()
    assert not path.name.startswith(".")
    assert path.name.casefold() not in ("con", "nul.txt")
    path.mkdir()


def test_plain_query_is_its_own_folder_name() -> None:
    assert folders.folder_name("crème brûlée") == "crème brûlée"


def test_queries_that_would_share_a_folder_are_refused() -> None:
    with pytest.raises(UsageError, match="share the folder"):
        folders.folders_of(["a/b", "a?b"], Path())
    assert len(folders.folders_of(["a", "b", "a"], Path())) == 2


def test_error_counts_more_than_a_short_query() -> None:
    short, filled, blocked = (Outcome("x", Path(), limit) for limit in (5, 0, 5))
    blocked.error = BlockedError("no")
    assert outcome.exit_code([filled, filled]) == 0
    assert outcome.exit_code([filled, short]) == 3
    assert outcome.exit_code([short, blocked, filled]) == 4
