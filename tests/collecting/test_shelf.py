"""The shelf: exact counts, no copy twice, no picture on two sides, and nobody's file touched."""

import hashlib
import json
import random
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from painted import encode
from PIL import Image

from classifier import files, fingerprints, images
from classifier.collecting import on_disk
from classifier.collecting.candidates import Candidate, examine
from classifier.collecting.collect import CollectSettings
from classifier.collecting.fetch import Fetched
from classifier.collecting.journal import DUPLICATE as NOTED_DUPLICATE
from classifier.collecting.journal import JOURNAL_NAME, Journal, read_entries
from classifier.collecting.memory import Memory
from classifier.collecting.queries import Query
from classifier.collecting.result_page import SearchResult
from classifier.collecting.shelf import (
    DUPLICATE,
    NEAR_DUPLICATE,
    NO_ROOM,
    OTHER_SPLIT,
    Place,
    Refusal,
    Shelf,
    scan,
)
from classifier.collecting.targets import Side, Target, neighbours, split_target
from classifier.errors import ImageError

LIMITS = images.Limits(min_side=16)
MANY = 1_000_000


def photo(seed: int, width: int = 240) -> Image.Image:
    """Give a picture of soft blots that no other seed gives, in the shape 4 to 3."""
    noise = np.random.default_rng(seed).integers(0, 256, (9, 12, 3), np.uint8)
    return Image.fromarray(noise).resize((width, width * 3 // 4), Image.Resampling.BICUBIC)


def real(seed: int, width: int = 240, picture_format: str = "JPEG", **options: int) -> Candidate:
    return examine(encode(photo(seed, width), picture_format, **options), LIMITS)


def made_up(number: int) -> Candidate:
    """Give a candidate in no time: nobody decodes a file that is what the journal says."""
    data = f"picture {number}".encode()
    digest = hashlib.sha256(data).hexdigest()
    fingerprint = np.random.default_rng(number).bytes(fingerprints.NUM_BYTES - 1) + b"\xff"
    return Candidate(data, digest, "JPEG", 100, 80, fingerprint)


def one_folder(folder: Path, limit: int = MANY) -> Target:
    return Target("x", (Query("x"),), Side(folder, limit))


def split(output: Path, limit: int = MANY, fraction: float = 0.2, name: str = "x") -> Target:
    return split_target(name, (Query(name),), output, limit, fraction)


class Run:
    """A run as `collect` starts it, into which a test puts pictures by hand."""

    def __init__(self, target: Target, journals: dict[Path, Journal], **options: object) -> None:
        self.shelf = Shelf(target, **{"limits": LIMITS, **options})
        self.memory = Memory(target, journals, self.shelf, CollectSettings())

    def note(self, candidate: Candidate) -> Place | Refusal:
        """Place a picture and write its line, but not its file."""
        place = self.shelf.place(candidate)
        result = SearchResult(f"http://h/{candidate.sha256}", query="x")
        fetched = Fetched(result.url, candidate.data, 200, 0.1)
        if isinstance(place, Place):
            self.memory.note_kept(result, fetched, candidate, place)
        else:
            self.memory.note_duplicate(result, fetched, candidate, place)
        return place

    def keep(self, candidate: Candidate) -> Place | Refusal:
        """Place a picture, and write it if it is wanted."""
        place = self.note(candidate)
        if isinstance(place, Place):
            # Quicker than `files.write_bytes`, which waits for the disk.
            (place.folder / candidate.file_name).write_bytes(candidate.data)
            self.shelf.settle(candidate)
            if place.replaces is not None:
                place.replaces.path.unlink()
        return place


Start = Callable[..., Run]


@pytest.fixture
def start() -> Iterator[Start]:
    """Give a function that starts a run, and ends the one before."""
    opened: list[Journal] = []

    def end() -> None:
        while opened:
            opened.pop().__exit__(None, None, None)

    def begin(target: Target, **options: object) -> Run:
        end()
        journals = {side.folder: Journal(side.folder) for side in target.sides}
        for journal in journals.values():
            journal.__enter__()
            opened.append(journal)
        return Run(target, journals, **options)

    yield begin
    end()


def folder_of(decision: Place | Refusal) -> Path:
    assert isinstance(decision, Place), decision
    return decision.folder


def reason_of(decision: Place | Refusal) -> str:
    assert isinstance(decision, Refusal), decision
    return decision.reason


def names_in(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir() if not path.name.startswith(".")}


def in_threads(count: int, work: Callable[[int], object]) -> None:
    together = threading.Barrier(count)

    def begin(number: int) -> None:
        together.wait(10)
        work(number)

    threads = [threading.Thread(target=begin, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)


# Counts


def test_no_more_places_are_given_than_there_are(tmp_path: Path) -> None:
    shelf = Shelf(one_folder(tmp_path, 100))
    pictures = [made_up(number) for number in range(500)]
    decisions: list[Place | Refusal] = []
    in_threads(16, lambda n: decisions.extend(shelf.place(one) for one in pictures[n::16]))
    assert len(decisions) == 500
    assert [d.reason for d in decisions if isinstance(d, Refusal)] == [NO_ROOM] * 400
    assert shelf.num_missing == 0


def test_both_sides_are_filled_exactly(tmp_path: Path) -> None:
    target = split(tmp_path, 100, 0.2)
    shelf = Shelf(target)
    pictures = [made_up(number) for number in range(500)]
    decisions: list[Place | Refusal] = []
    in_threads(16, lambda n: decisions.extend(shelf.place(one) for one in pictures[n::16]))
    given = [d.folder for d in decisions if isinstance(d, Place)]
    assert [given.count(side.folder) for side in target.sides] == [80, 20]


def test_the_same_picture_from_many_threads_has_one_place(tmp_path: Path) -> None:
    shelf = Shelf(split(tmp_path))
    pictures = [made_up(number) for number in range(30)]
    decisions: list[Place | Refusal] = []
    in_threads(16, lambda _: decisions.extend(shelf.place(one) for one in pictures))
    refusals = [d for d in decisions if isinstance(d, Refusal)]
    assert len(decisions) - len(refusals) == 30
    assert {refusal.reason for refusal in refusals} == {DUPLICATE}


def test_a_place_that_is_given_back_is_free_again(tmp_path: Path) -> None:
    shelf = Shelf(one_folder(tmp_path, 1))
    first = made_up(1)
    place = shelf.place(first)
    assert isinstance(place, Place)
    assert (shelf.num_missing, shelf.holds(first.sha256)) == (0, True)
    assert reason_of(shelf.place(made_up(2))) == NO_ROOM
    shelf.release(first, place)
    assert (shelf.num_missing, shelf.holds(first.sha256)) == (1, False)
    shelf.release(first, place)  # twice is no more than once
    assert shelf.num_missing == 1
    assert isinstance(shelf.place(first), Place)


def test_what_lies_there_counts(start: Start, tmp_path: Path) -> None:
    (tmp_path / "mine.jpg").write_bytes(encode(photo(0)))
    run = start(one_folder(tmp_path, 3))
    assert (run.shelf.num_before, run.shelf.num_missing) == (1, 2)
    for seed in (1, 2):
        run.keep(real(seed))
    assert reason_of(run.shelf.place(real(3))) == NO_ROOM
    again = start(one_folder(tmp_path, 3)).shelf
    assert (again.num_before, again.num_missing) == (3, 0)


def test_a_lower_limit_wants_nothing(start: Start, tmp_path: Path) -> None:
    run = start(one_folder(tmp_path))
    for number in range(5):
        run.keep(made_up(number))
    assert start(one_folder(tmp_path, 2)).shelf.num_missing == 0
    assert len(names_in(tmp_path)) == 5


def test_too_many_on_one_side_do_not_stand_in_for_the_other(start: Start, tmp_path: Path) -> None:
    run = start(one_folder(tmp_path / "train" / "x", 10))
    for number in range(10):
        run.keep(made_up(number))
    shelf = start(split(tmp_path, 10, 0.2)).shelf
    assert shelf.num_missing == 2
    assert shelf.num_before == 8, "those that count towards the limits"


# The split


@pytest.mark.parametrize("fraction", [0.1, 0.2, 0.5])
def test_each_side_gets_its_part(tmp_path: Path, fraction: float) -> None:
    target = split(tmp_path, fraction=fraction)
    shelf = Shelf(target)
    given = [folder_of(shelf.place(made_up(number))) for number in range(1000)]
    assert given.count(target.sides[1].folder) / 1000 == pytest.approx(fraction, abs=0.02)


def test_a_thousand_pictures_never_move(start: Start, tmp_path: Path) -> None:
    pictures = [made_up(number) for number in range(1000)]
    small, large = split(tmp_path, 500), split(tmp_path, 1000)
    run = start(small)
    first = {one.sha256: run.keep(one) for one in pictures[:700]}
    kept = {sha: d.folder for sha, d in first.items() if isinstance(d, Place)}
    assert [list(kept.values()).count(side.folder) for side in small.sides] == [400, 100]

    again = start(small).shelf
    assert (again.num_before, again.num_missing, again.unusable) == (500, 0, [])
    random.Random(0).shuffle(pictures)
    grown = start(large)
    for one in pictures:
        decision = grown.keep(one)
        if one.sha256 in kept:
            assert reason_of(decision) == DUPLICATE
    for one in pictures[:200]:
        if one.sha256 in kept:
            assert (kept[one.sha256] / one.file_name).read_bytes() == one.data
    assert [len(names_in(side.folder)) for side in large.sides] == [800, 200]


def test_the_content_alone_prefers_a_side(tmp_path: Path) -> None:
    pictures = [made_up(number) for number in range(300)]
    shelf = Shelf(split(tmp_path))
    sides = {one.sha256: folder_of(shelf.place(one)) for one in pictures}
    assert len(set(sides.values())) == 2
    fresh = Shelf(split(tmp_path))
    for one in reversed(pictures):
        assert folder_of(fresh.place(one)) == sides[one.sha256]


def test_a_full_side_leaves_its_pictures_to_the_other(tmp_path: Path) -> None:
    target = split(tmp_path, 10, 0.5)
    shelf = Shelf(target)
    for number in range(10):
        shelf.place(made_up(number))
    assert shelf.num_missing == 0


# Copies


COPIES = {
    "half the size": (120, "JPEG", {}),
    "a third of the size": (80, "PNG", {}),
    "a poor JPEG": (240, "JPEG", {"quality": 30}),
    "WebP": (200, "WEBP", {"quality": 60}),
    "PNG": (240, "PNG", {}),
}


@pytest.mark.parametrize("copy", COPIES)
def test_a_copy_is_refused_in_the_class(tmp_path: Path, copy: str) -> None:
    width, picture_format, options = COPIES[copy]
    shelf = Shelf(split(tmp_path))
    for seed in range(20):
        original = real(seed)
        assert isinstance(shelf.place(original), Place)
        assert reason_of(shelf.place(original)) == DUPLICATE
        refusal = shelf.place(real(seed, width, picture_format, **options))
        assert reason_of(refusal) == NEAR_DUPLICATE
        assert refusal.twin is not None
        assert refusal.twin.sha256 == original.sha256


@pytest.mark.parametrize("copy", [*COPIES, "the very same"])
@pytest.mark.parametrize(
    ("here", "there"), [("train", "validation"), ("validation", "train"), ("train", "test")]
)
def test_a_copy_of_another_split_is_refused(
    start: Start, tmp_path: Path, copy: str, here: str, there: str
) -> None:
    width, picture_format, options = COPIES.get(copy, (240, "JPEG", {}))
    start(one_folder(tmp_path / there / "x")).keep(real(1))
    shelf = start(one_folder(tmp_path / here / "x")).shelf
    refusal = shelf.place(real(1, width, picture_format, **options))
    assert reason_of(refusal) == OTHER_SPLIT
    assert refusal.twin is not None
    assert refusal.twin.path.parent == tmp_path / there / "x"
    assert shelf.knows(refusal.twin.sha256)
    assert shelf.num_missing == MANY
    assert isinstance(shelf.place(real(2)), Place)


@pytest.mark.parametrize("width", [240, 120, 480])
def test_a_copy_of_another_class_is_kept_with_a_warning(
    start: Start, tmp_path: Path, width: int
) -> None:
    start(one_folder(tmp_path / "train" / "a")).keep(real(1))
    place = start(one_folder(tmp_path / "train" / "b")).shelf.place(real(1, width))
    assert isinstance(place, Place)
    assert place.also_in == (tmp_path / "train" / "a" / real(1).file_name,)
    assert place.replaces is None


def test_a_copy_of_another_class_in_another_split_is_refused(start: Start, tmp_path: Path) -> None:
    start(one_folder(tmp_path / "train" / "a")).keep(real(1))
    shelf = start(one_folder(tmp_path / "validation" / "b")).shelf
    assert reason_of(shelf.place(real(1))) == OTHER_SPLIT
    assert reason_of(shelf.place(real(1, 120))) == OTHER_SPLIT


def test_each_other_class_is_named_once(start: Start, tmp_path: Path) -> None:
    for name in ("a", "b"):
        start(one_folder(tmp_path / "train" / name)).keep(real(1))
    shelf = start(one_folder(tmp_path / "train" / "c")).shelf
    place = shelf.place(real(1, 120))
    assert isinstance(place, Place)
    assert place.also_in == tuple(
        tmp_path / "train" / name / real(1).file_name for name in ("a", "b")
    )


def test_folders_outside_a_data_set_are_compared_when_they_are_named(
    start: Start, tmp_path: Path
) -> None:
    start(one_folder(tmp_path / "a")).keep(real(1))
    alone = start(one_folder(tmp_path / "b")).shelf.place(real(1))
    assert isinstance(alone, Place)
    assert alone.also_in == ()
    named = start(one_folder(tmp_path / "b"), others=[tmp_path / "a", tmp_path / "b"]).shelf
    place = named.place(real(1))
    assert isinstance(place, Place)
    assert place.also_in == (tmp_path / "a" / real(1).file_name,)


def test_a_missing_folder_is_an_empty_one(tmp_path: Path) -> None:
    shelf = Shelf(split(tmp_path / "nowhere"), [tmp_path / "neither"])
    assert (shelf.num_before, shelf.unusable) == (0, [])


def test_copies_may_be_kept_but_on_one_side(start: Start, tmp_path: Path) -> None:
    run = start(split(tmp_path, fraction=0.5), keeps_near_duplicates=True)
    for seed in range(12):
        side = folder_of(run.keep(real(seed)))
        for width in (60, 120, 180, 300):
            assert folder_of(run.keep(real(seed, width))) == side
        assert reason_of(run.keep(real(seed))) == DUPLICATE
    again = start(split(tmp_path, fraction=0.5), keeps_near_duplicates=True).shelf
    assert again.num_before == 60


# A larger copy


def test_a_larger_copy_takes_the_place(start: Start, tmp_path: Path) -> None:
    run = start(split(tmp_path, 2, 0.5))
    small, other = real(1, 100), real(2)
    folder = folder_of(run.keep(small))
    run.keep(other)
    assert run.shelf.num_missing == 0
    large = real(1, 240)
    place = run.keep(large)
    assert folder_of(place) == folder
    assert place.replaces.sha256 == small.sha256
    assert (run.shelf.holds(small.sha256), run.shelf.holds(large.sha256)) == (False, True)
    assert names_in(folder) == {large.file_name}
    assert reason_of(run.keep(small)) == NEAR_DUPLICATE
    larger = run.keep(real(1, 400))
    assert folder_of(larger) == folder
    again = start(split(tmp_path, 2, 0.5)).shelf
    assert (again.num_before, again.num_missing) == (2, 0)


def test_a_larger_copy_is_not_one_more(start: Start, tmp_path: Path) -> None:
    run = start(one_folder(tmp_path, 5))
    for width in (60, 120, 240):
        assert isinstance(run.keep(real(1, width)), Place)
        assert run.shelf.num_missing == 4


def test_a_little_larger_is_not_worth_it(start: Start, tmp_path: Path) -> None:
    run = start(one_folder(tmp_path))
    run.keep(real(1, 200))
    assert reason_of(run.shelf.place(real(1, 216))) == NEAR_DUPLICATE
    assert isinstance(run.shelf.place(real(1, 224)), Place)


def test_a_users_own_file_is_never_replaced(start: Start, tmp_path: Path) -> None:
    (tmp_path / "mine.jpg").write_bytes(encode(photo(1, 80)))
    run = start(one_folder(tmp_path))
    assert reason_of(run.shelf.place(real(1, 400))) == NEAR_DUPLICATE


def test_a_file_of_ours_that_a_user_changed_is_the_users(start: Start, tmp_path: Path) -> None:
    candidate = real(1, 80)
    start(one_folder(tmp_path)).keep(candidate)
    edited = tmp_path / candidate.file_name
    edited.write_bytes(encode(photo(1, 80), quality=99))
    run = start(one_folder(tmp_path))
    assert reason_of(run.keep(real(1, 400))) == NEAR_DUPLICATE
    assert edited.exists()


def test_a_users_file_under_our_name_is_not_written_over(start: Start, tmp_path: Path) -> None:
    candidate = real(1)
    start(one_folder(tmp_path, 5)).keep(candidate)
    (tmp_path / candidate.file_name).write_bytes(encode(photo(2)))  # something quite different
    shelf = start(one_folder(tmp_path, 5)).shelf
    refusal = shelf.place(candidate)
    assert reason_of(refusal) == DUPLICATE
    assert shelf.knows(refusal.twin.sha256), "so that the next run need not ask for it"
    assert shelf.num_missing == 4


def test_a_picture_that_is_just_being_written_is_not_replaced(start: Start, tmp_path: Path) -> None:
    run = start(one_folder(tmp_path))
    small = real(1, 80)
    assert isinstance(run.note(small), Place)
    assert reason_of(run.shelf.place(real(1, 240))) == NEAR_DUPLICATE
    run.shelf.settle(small)
    assert isinstance(run.shelf.place(real(1, 240)), Place)


def test_two_smaller_ones_are_not_replaced_by_one(start: Start, tmp_path: Path) -> None:
    run = start(one_folder(tmp_path), keeps_near_duplicates=True)
    run.keep(real(1, 80))
    run.keep(real(1, 100))
    assert reason_of(start(one_folder(tmp_path)).shelf.place(real(1, 240))) == NEAR_DUPLICATE


def test_a_larger_copy_that_could_not_be_written_leaves_the_smaller(
    start: Start, tmp_path: Path
) -> None:
    run = start(one_folder(tmp_path, 1))
    small, large = real(1, 80), real(1, 240)
    run.keep(small)
    place = run.shelf.place(large)
    assert isinstance(place, Place)
    run.shelf.release(large, place)
    assert (run.shelf.holds(small.sha256), run.shelf.holds(large.sha256)) == (True, False)
    assert run.shelf.num_missing == 0
    again = run.shelf.place(large)
    assert isinstance(again, Place), "the second attempt is as good as the first"
    assert again.replaces == place.replaces
    run.shelf.settle(large)
    assert isinstance(run.shelf.place(real(1, 400)), Place)


# Killed half-way


def test_a_replacement_that_was_cut_short_is_finished(start: Start, tmp_path: Path) -> None:
    run = start(one_folder(tmp_path, 5))
    small, large = real(1, 80), real(1, 240)
    run.keep(small)
    run.note(large)
    (tmp_path / large.file_name).write_bytes(large.data)  # killed before the other was removed
    assert start(one_folder(tmp_path, 5)).shelf.num_before == 1
    assert names_in(tmp_path) == {large.file_name}


def test_a_replacement_that_was_never_written_leaves_the_smaller(
    start: Start, tmp_path: Path
) -> None:
    run = start(one_folder(tmp_path, 5))
    small, large = real(1, 80), real(1, 240)
    run.keep(small)
    run.note(large)
    run = start(one_folder(tmp_path, 5))
    assert (run.shelf.num_before, names_in(tmp_path)) == (1, {small.file_name})
    assert folder_of(run.keep(large)) == tmp_path
    assert start(one_folder(tmp_path, 5)).shelf.num_before == 1
    assert names_in(tmp_path) == {large.file_name}


def test_a_smaller_copy_that_was_kept_again_stays(start: Start, tmp_path: Path) -> None:
    run = start(one_folder(tmp_path))
    small, large = real(1, 80), real(1, 240)
    run.keep(small)
    run.keep(large)
    start(one_folder(tmp_path), keeps_near_duplicates=True).keep(small)
    assert names_in(tmp_path) == {small.file_name, large.file_name}
    assert start(one_folder(tmp_path), keeps_near_duplicates=True).shelf.num_before == 2


@pytest.mark.parametrize("replaced", ["mine.jpg", "..", ".", "../outside.jpg", "a\0b", "edited"])
def test_only_what_we_wrote_is_removed(start: Start, tmp_path: Path, replaced: str) -> None:
    folder = tmp_path / "x"
    run = start(one_folder(folder))
    edited, kept = real(2), real(1)
    run.keep(edited)
    run.keep(kept)
    mine = [folder / "mine.jpg", tmp_path / "outside.jpg", folder / edited.file_name]
    for path in mine:
        path.write_bytes(encode(photo(3)))
    replaced = edited.file_name if replaced == "edited" else replaced
    lines = [dict(entry) for entry in read_entries(folder / JOURNAL_NAME)]
    lines[-1]["replaces"] = replaced
    (folder / JOURNAL_NAME).write_text("".join(json.dumps(line) + "\n" for line in lines))
    start(one_folder(folder))
    assert all(path.exists() for path in mine)


def test_a_line_that_names_a_file_elsewhere_removes_nothing(start: Start, tmp_path: Path) -> None:
    folder = tmp_path / "x"
    start(one_folder(folder)).keep(real(1))
    outside = tmp_path / "outside.jpg"
    outside.write_bytes(real(2).data)
    line = next(read_entries(folder / JOURNAL_NAME))
    there = {"path": "../outside.jpg", "sha256": real(2).sha256, "bytes": len(real(2).data)}
    lines = [{**line, **there}, {**line, "replaces": "../outside.jpg"}]
    (folder / JOURNAL_NAME).write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert start(one_folder(folder)).shelf.num_before == 1
    assert outside.exists()


# What lies there


def test_a_file_changed_by_hand_is_noticed_though_its_size_is_the_same(
    start: Start, tmp_path: Path
) -> None:
    candidate, other = real(1, picture_format="BMP"), real(2, picture_format="BMP")
    assert len(candidate.data) == len(other.data)
    start(one_folder(tmp_path)).keep(candidate)
    (tmp_path / candidate.file_name).write_bytes(other.data)
    shelf = start(one_folder(tmp_path)).shelf
    assert (shelf.holds(candidate.sha256), shelf.holds(other.sha256)) == (False, True)
    assert (shelf.num_before, shelf.unusable) == (1, [])


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data[:-9],
        lambda data: bytes(len(data)),
        lambda data: b"",
        lambda data: b"<html>",
    ],
)
def test_a_corrupted_file_is_named_and_not_counted(
    start: Start,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    damage: Callable[[bytes], bytes],
) -> None:
    run = start(one_folder(tmp_path, 2))
    for seed in (1, 2):
        run.keep(real(seed))
    path = tmp_path / real(1).file_name
    path.write_bytes(damage(real(1).data))
    shelf = start(one_folder(tmp_path, 2)).shelf
    assert (shelf.num_before, shelf.num_missing, shelf.unusable) == (1, 1, [path])
    assert str(path) in caplog.text
    assert path.exists()
    assert isinstance(shelf.place(real(1)), Place)


def test_a_larger_minimum_does_not_count_the_small_ones(start: Start, tmp_path: Path) -> None:
    run = start(one_folder(tmp_path))
    run.keep(real(1, 80))
    run.keep(real(2, 400))
    shelf = start(one_folder(tmp_path), limits=images.Limits(min_side=64)).shelf
    assert shelf.num_before == 1
    assert shelf.unusable == [tmp_path / real(1, 80).file_name]
    assert start(one_folder(tmp_path)).shelf.num_before == 2


def test_a_copy_beside_it_does_not_count_twice(start: Start, tmp_path: Path) -> None:
    start(one_folder(tmp_path)).keep(real(1))
    (tmp_path / "copy.jpg").write_bytes(real(1).data)
    assert start(one_folder(tmp_path)).shelf.num_before == 1


def test_only_files_that_show_are_looked_at(tmp_path: Path) -> None:
    for name in (".hidden.jpg", "sub/a.jpg", "a.jpg", ".sub/b.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(encode(photo(1)))
    (tmp_path / "nowhere.jpg").symlink_to(tmp_path / "gone")
    good, unusable = scan(tmp_path, LIMITS)
    assert ([picture.path.name for picture in good], unusable) == (["a.jpg"], [])
    assert not good[0].is_ours


def test_files_come_in_order_of_their_names(tmp_path: Path) -> None:
    for seed, name in enumerate("cab"):
        (tmp_path / f"{name}.jpg").write_bytes(encode(photo(seed)))
        (tmp_path / f"{name}.txt").write_text("no picture")
    good, unusable = scan(tmp_path, LIMITS)
    assert [picture.path.name for picture in good] == ["a.jpg", "b.jpg", "c.jpg"]
    assert [path.name for path in unusable] == ["a.txt", "b.txt", "c.txt"]


def test_what_the_journal_knows_is_not_decoded(start: Start, tmp_path: Path) -> None:
    candidate = made_up(1)  # which nothing could decode
    start(one_folder(tmp_path)).keep(candidate)
    good, _ = scan(tmp_path, LIMITS)
    assert [(one.sha256, one.num_pixels, one.is_ours) for one in good] == [
        (candidate.sha256, 8000, True)
    ]
    (tmp_path / candidate.file_name).write_bytes(candidate.data[::-1])
    assert scan(tmp_path, LIMITS)[1] == [tmp_path / candidate.file_name]
    assert len(scan(tmp_path, LIMITS, trusting=True)[0]) == 1


@pytest.mark.parametrize(
    "change",
    [
        {"fingerprint": "zz" * fingerprints.NUM_BYTES},
        {"fingerprint": "00"},
        {"fingerprint": None},
        {"width": "240"},
        {"bytes": None},
        {"path": 5},
        {"sha256": ["a"]},
        {"status": NOTED_DUPLICATE},
        {"replaces": 7},
    ],
)
def test_a_line_that_is_not_as_we_write_it_does_no_harm(
    start: Start, tmp_path: Path, change: dict[str, object]
) -> None:
    start(one_folder(tmp_path)).keep(real(1))
    path = tmp_path / JOURNAL_NAME
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}) + "\n")
    good, unusable = scan(tmp_path, LIMITS)
    assert ([picture.sha256 for picture in good], unusable) == ([real(1).sha256], [])
    assert start(one_folder(tmp_path)).shelf.num_before == 1


def test_a_file_that_has_gone_meanwhile_is_one_picture_less(start: Start, tmp_path: Path) -> None:
    start(one_folder(tmp_path)).keep(real(1))
    entry = next(read_entries(tmp_path / JOURNAL_NAME))
    for line in (entry, None):
        with pytest.raises(ImageError, match=r"gone\.jpg"):
            on_disk._look(tmp_path / "gone.jpg", line, LIMITS, trusting=False)


# Targets


@pytest.mark.parametrize(
    ("limit", "fraction", "sizes"),
    [
        (10, 0.2, (8, 2)),
        (300, 0.2, (240, 60)),
        (2, 0.01, (1, 1)),
        (2, 0.99, (1, 1)),
        (3, 0.5, (1, 2)),
        (100, 0.333, (67, 33)),
    ],
)
def test_a_limit_is_shared_out(
    tmp_path: Path, limit: int, fraction: float, sizes: tuple[int, int]
) -> None:
    target = split(tmp_path, limit, fraction)
    assert tuple(side.limit for side in target.sides) == sizes
    assert target.limit == limit
    assert [side.folder for side in target.sides] == [
        tmp_path / "train" / "x",
        tmp_path / "validation" / "x",
    ]
    assert target.validation_fraction == sizes[1] / limit


def test_one_folder_has_no_validation(tmp_path: Path) -> None:
    target = one_folder(tmp_path, 7)
    assert (target.limit, target.validation_fraction) == (7, 0.0)
    assert target.sides == (Side(tmp_path, 7),)


def test_neighbours_are_the_other_classes_of_every_split(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    places = ["train/a", "train/b", "validation/a", "test/c", "other/d", "train/.trash"]
    for place in places:
        (tmp_path / place).mkdir(parents=True)
    (tmp_path / "train" / "file.txt").touch()
    expected = [tmp_path / place for place in ("train/b", "validation/a", "test/c")]
    assert neighbours(tmp_path / "train" / "a") == expected
    assert neighbours(tmp_path / "other" / "d") == []
    assert neighbours(tmp_path / "train") == []
    monkeypatch.chdir(tmp_path / "train" / "a")
    assert neighbours(Path()) == expected


def test_files_of_the_run_are_no_pictures(start: Start, tmp_path: Path) -> None:
    run = start(one_folder(tmp_path))
    run.keep(real(1))
    files.write_bytes(tmp_path / ".partial-x", b"half")
    good, unusable = scan(tmp_path, LIMITS)
    assert (len(good), unusable) == (1, [])
