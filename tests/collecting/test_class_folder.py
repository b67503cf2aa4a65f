"""The class folder: exact counts, no image on two sides, copies refused or named."""

import concurrent.futures
import json
import random
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from filling import (
    LIMITS,
    MANY,
    Start,
    folder_of,
    made_up,
    names_in,
    one_folder,
    photo,
    real,
    reason_of,
    split,
)
from painted import encode

from imagesieve import images
from imagesieve.collecting import class_folder
from imagesieve.collecting.class_folder import (
    DUPLICATE,
    NEAR_DUPLICATE,
    NO_ROOM,
    OTHER_SPLIT,
    Candidate,
    ClassFolder,
    Destination,
    NotPlaced,
    StoredImage,
    scan,
)
from imagesieve.collecting.journal import JOURNAL_NAME, Entry, read_entries
from imagesieve.errors import ImageError, OutputError
from imagesieve.images import fingerprints

Decisions = tuple[list[Destination], list[NotPlaced]]

# Counts


def place_from_threads(folder: ClassFolder, candidates: Iterable[Candidate]) -> Decisions:
    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        decisions = list(pool.map(folder.place, candidates))
    refused = [decision for decision in decisions if isinstance(decision, NotPlaced)]
    return [d for d in decisions if isinstance(d, Destination)], refused


def test_both_sides_are_filled_exactly(tmp_path: Path) -> None:
    target = split(tmp_path, 100, 0.2)
    folder = ClassFolder(target)
    placed, refused = place_from_threads(folder, map(made_up, range(500)))
    given = [one.path.parent for one in placed]
    assert [given.count(side.folder) for side in target.sides] == [80, 20]
    assert [one.reason for one in refused] == [NO_ROOM] * 400
    assert folder.num_missing == 0


def test_the_same_image_from_many_threads_has_one_place(tmp_path: Path) -> None:
    candidates = [made_up(number) for number in range(30) for _ in range(16)]
    placed, refused = place_from_threads(ClassFolder(split(tmp_path)), candidates)
    assert len(placed) == 30
    assert {refusal.reason for refusal in refused} == {DUPLICATE}


def test_a_place_that_is_given_back_is_free_again(tmp_path: Path) -> None:
    folder = ClassFolder(one_folder(tmp_path, 1))
    first = made_up(1)
    place = folder.place(first)
    assert (folder.num_missing, folder.has(first.sha256)) == (0, True)
    assert reason_of(folder.place(made_up(2))) == NO_ROOM

    def fail() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        folder.write(first, place, fail)
    assert (folder.num_missing, folder.has(first.sha256)) == (1, False)
    assert isinstance(folder.place(first), Destination)


def test_what_lies_there_counts(start_run: Start, tmp_path: Path) -> None:
    (tmp_path / "mine.jpg").write_bytes(encode(photo(0)))
    run = start_run(one_folder(tmp_path, 3))
    assert (run.folder.num_before, run.folder.num_missing) == (1, 2)
    for seed in (1, 2):
        run.keep(real(seed))
    assert reason_of(run.folder.place(real(3))) == NO_ROOM
    again = start_run(one_folder(tmp_path, 3)).folder
    assert (again.num_before, again.num_missing) == (3, 0)


def test_too_many_on_one_side_do_not_stand_in_for_the_other(
    start_run: Start, tmp_path: Path
) -> None:
    run = start_run(one_folder(tmp_path / "train" / "x", 10))
    for number in range(10):
        run.keep(made_up(number))
    folder = start_run(split(tmp_path, 10, 0.2)).folder
    assert folder.num_missing == 2
    assert folder.num_before == 8, "those that count towards the limits"


# The split


@pytest.mark.parametrize("fraction", [0.1, 0.2, 0.5])
def test_each_side_gets_its_part_by_the_content_alone(tmp_path: Path, fraction: float) -> None:
    target = split(tmp_path, fraction=fraction)
    candidates = [made_up(number) for number in range(1000)]
    folder, fresh = ClassFolder(target), ClassFolder(target)
    given = [folder_of(folder.place(one)) for one in candidates]
    assert given.count(target.sides[1].folder) / 1000 == pytest.approx(fraction, abs=0.02)
    assert [folder_of(fresh.place(one)) for one in reversed(candidates[-300:])] == given[:-301:-1]


def test_many_images_never_move(start_run: Start, tmp_path: Path) -> None:
    images = [made_up(number) for number in range(200)]
    small, large = split(tmp_path, 100), split(tmp_path, 200)
    run = start_run(small)
    first = {one.sha256: run.keep(one) for one in images[:140]}
    kept = {sha: d.path.parent for sha, d in first.items() if isinstance(d, Destination)}
    assert [list(kept.values()).count(side.folder) for side in small.sides] == [80, 20]

    again = start_run(small).folder
    assert (again.num_before, again.num_missing, again.unusable) == (100, 0, [])
    random.Random(0).shuffle(images)
    grown = start_run(large)
    for one in images:
        decision = grown.keep(one)
        if one.sha256 in kept:
            assert reason_of(decision) == DUPLICATE
    for one in images[:40]:
        if one.sha256 in kept:
            assert (kept[one.sha256] / one.file_name).read_bytes() == one.data
    assert [len(names_in(side.folder)) for side in large.sides] == [160, 40]


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
    width, image_format, options = COPIES[copy]
    folder = ClassFolder(split(tmp_path))
    for seed in range(20):
        original = real(seed)
        assert isinstance(folder.place(original), Destination)
        assert reason_of(folder.place(original)) == DUPLICATE
        refusal = folder.place(real(seed, width, image_format, **options))
        assert reason_of(refusal) == NEAR_DUPLICATE
        assert refusal.twin.sha256 == original.sha256


@pytest.mark.parametrize("copy", [*COPIES, "the very same"])
@pytest.mark.parametrize(
    ("here", "there"), [("train", "validation"), ("validation", "train"), ("train", "test")]
)
def test_a_copy_of_another_split_is_refused(
    start_run: Start, tmp_path: Path, copy: str, here: str, there: str
) -> None:
    width, image_format, options = COPIES.get(copy, (240, "JPEG", {}))
    start_run(one_folder(tmp_path / there / "x")).keep(real(1))
    folder = start_run(one_folder(tmp_path / here / "x")).folder
    refusal = folder.place(real(1, width, image_format, **options))
    assert reason_of(refusal) == OTHER_SPLIT
    assert refusal.twin.path.parent == tmp_path / there / "x"
    assert folder.has_anywhere(refusal.twin.sha256)
    assert folder.num_missing == MANY
    assert isinstance(folder.place(real(2)), Destination)


@pytest.mark.parametrize("width", [240, 120, 480])
def test_a_copy_of_other_classes_is_kept_with_a_warning(
    start_run: Start, tmp_path: Path, width: int
) -> None:
    for name in ("a", "b"):
        start_run(one_folder(tmp_path / "train" / name)).keep(real(1))
    place = start_run(one_folder(tmp_path / "train" / "c")).folder.place(real(1, width))
    assert isinstance(place, Destination)
    twins = [tmp_path / "train" / name / real(1).file_name for name in ("a", "b")]
    assert (place.also_in, place.replaces) == (tuple(twins), None)


def test_folders_outside_a_data_set_are_compared_when_they_are_named(
    start_run: Start, tmp_path: Path
) -> None:
    start_run(one_folder(tmp_path / "a")).keep(real(1))
    alone = start_run(one_folder(tmp_path / "b")).folder.place(real(1))
    named = start_run(one_folder(tmp_path / "b"), others=[tmp_path / "a", tmp_path / "b"])
    place = named.folder.place(real(1))
    assert (alone.also_in, place.also_in) == ((), (tmp_path / "a" / real(1).file_name,))


def test_copies_may_be_kept_but_on_one_side(start_run: Start, tmp_path: Path) -> None:
    run = start_run(split(tmp_path, fraction=0.5), keeps_near_duplicates=True)
    for seed in range(12):
        side = folder_of(run.keep(real(seed)))
        for width in (60, 120, 180, 300):
            assert folder_of(run.keep(real(seed, width))) == side
        assert reason_of(run.keep(real(seed))) == DUPLICATE
    again = start_run(split(tmp_path, fraction=0.5), keeps_near_duplicates=True).folder
    assert again.num_before == 60


# A larger copy


def test_a_larger_copy_takes_the_place(start_run: Start, tmp_path: Path) -> None:
    run = start_run(split(tmp_path, 2, 0.5))
    small, large = real(1, 100), real(1, 240)
    folder = folder_of(run.keep(small))
    run.keep(real(2))
    assert run.folder.num_missing == 0
    place = run.keep(large)
    assert (folder_of(place), place.replaces.sha256) == (folder, small.sha256)
    assert (run.folder.has(small.sha256), run.folder.has(large.sha256)) == (False, True)
    assert names_in(folder) == {large.file_name}
    assert reason_of(run.keep(small)) == NEAR_DUPLICATE
    assert folder_of(run.keep(real(1, 400))) == folder
    again = start_run(split(tmp_path, 2, 0.5)).folder
    assert (again.num_before, again.num_missing) == (2, 0)


def test_what_is_little_larger_or_the_users_own_or_two_images_is_not_replaced(
    start_run: Start, tmp_path: Path
) -> None:
    (tmp_path / "mine.jpg").write_bytes(encode(photo(2, 80)))
    run = start_run(one_folder(tmp_path), keeps_near_duplicates=True)
    for candidate in (real(1, 200), real(3, 80), real(3, 100)):
        run.keep(candidate)
    folder = start_run(one_folder(tmp_path)).folder
    for refused in (real(1, 216), real(2, 400), real(3, 240)):
        assert reason_of(folder.place(refused)) == NEAR_DUPLICATE
    assert isinstance(folder.place(real(1, 224)), Destination)


def test_a_users_file_under_our_name_is_not_written_over(start_run: Start, tmp_path: Path) -> None:
    candidate = real(1)
    start_run(one_folder(tmp_path, 5)).keep(candidate)
    (tmp_path / candidate.file_name).write_bytes(encode(photo(2)))  # something quite different
    folder = start_run(one_folder(tmp_path, 5)).folder
    refusal = folder.place(candidate)
    assert reason_of(refusal) == DUPLICATE
    assert folder.has_anywhere(refusal.twin.sha256), "so that the next run need not ask for it"
    assert folder.num_missing == 4


def test_an_image_that_is_just_being_written_is_not_replaced(
    start_run: Start, tmp_path: Path
) -> None:
    run = start_run(one_folder(tmp_path))
    small, large = real(1, 80), real(1, 240)
    place = run.note(small)
    assert reason_of(run.folder.place(large)) == NEAR_DUPLICATE
    run.folder.write(small, place, lambda: None)
    assert isinstance(run.folder.place(large), Destination)


def test_a_larger_copy_that_could_not_be_written_leaves_the_smaller(
    start_run: Start, tmp_path: Path
) -> None:
    run = start_run(one_folder(tmp_path, 1))
    small, large = real(1, 80), real(1, 240)
    run.keep(small)
    place = run.folder.place(large)
    place.path.mkdir()  # in the way
    with pytest.raises(OutputError):
        run.folder.write(large, place, lambda: None)
    assert (run.folder.has(small.sha256), run.folder.has(large.sha256)) == (True, False)
    assert run.folder.num_missing == 0
    assert (tmp_path / small.file_name).exists()
    place.path.rmdir()
    again = run.folder.place(large)
    assert again.replaces == place.replaces, "the second attempt is as good as the first"
    run.folder.write(large, again, lambda: None)
    assert isinstance(run.folder.place(real(1, 400)), Destination)


# Killed half-way


@pytest.mark.parametrize("is_written", [True, False])
def test_a_replacement_that_was_cut_short_is_finished_or_leaves_the_smaller(
    start_run: Start, tmp_path: Path, is_written: bool
) -> None:
    run = start_run(one_folder(tmp_path, 5))
    small, large = real(1, 80), real(1, 240)
    run.keep(small)
    run.note(large)  # ahead of the file
    if is_written:
        (tmp_path / large.file_name).write_bytes(large.data)
    run = start_run(one_folder(tmp_path, 5))
    left = large if is_written else small
    assert (run.folder.num_before, names_in(tmp_path)) == (1, {left.file_name})
    run.keep(large)
    assert start_run(one_folder(tmp_path, 5)).folder.num_before == 1
    assert names_in(tmp_path) == {large.file_name}


def test_a_smaller_copy_that_was_kept_again_stays(start_run: Start, tmp_path: Path) -> None:
    run = start_run(one_folder(tmp_path))
    small, large = real(1, 80), real(1, 240)
    run.keep(small)
    run.keep(large)
    start_run(one_folder(tmp_path), keeps_near_duplicates=True).keep(small)
    assert names_in(tmp_path) == {small.file_name, large.file_name}
    assert start_run(one_folder(tmp_path), keeps_near_duplicates=True).folder.num_before == 2


def write_journal(folder: Path, lines: list[Entry]) -> None:
    (folder / JOURNAL_NAME).write_text("".join(json.dumps(line) + "\n" for line in lines))


@pytest.mark.parametrize("replaced", ["mine.jpg", "..", ".", "../outside.jpg", "a\0b", "edited"])
def test_only_what_we_wrote_is_removed(start_run: Start, tmp_path: Path, replaced: str) -> None:
    folder = tmp_path / "x"
    run = start_run(one_folder(folder))
    edited, kept = real(2), real(1)
    run.keep(edited)
    run.keep(kept)
    mine = [folder / "mine.jpg", tmp_path / "outside.jpg", folder / edited.file_name]
    for path in mine:
        path.write_bytes(encode(photo(3)))
    lines = list(read_entries(folder / JOURNAL_NAME))
    lines[-1]["replaces"] = edited.file_name if replaced == "edited" else replaced
    write_journal(folder, lines)
    start_run(one_folder(folder))
    assert all(path.exists() for path in mine)


def test_a_line_that_names_a_file_elsewhere_removes_nothing(
    start_run: Start, tmp_path: Path
) -> None:
    folder, outside = tmp_path / "x", tmp_path / "outside.jpg"
    start_run(one_folder(folder)).keep(real(1))
    outside.write_bytes(real(2).data)
    line = next(read_entries(folder / JOURNAL_NAME))
    there = {"path": "../outside.jpg", "sha256": real(2).sha256, "bytes": len(real(2).data)}
    write_journal(folder, [{**line, **there}, {**line, "replaces": "../outside.jpg"}])
    assert start_run(one_folder(folder)).folder.num_before == 1
    assert outside.exists()


# What lies in a folder already: read, compared with the journal, and left as it is


def scanned(folder: Path, *arguments: Any, **options: Any) -> tuple[list[StoredImage], list[Path]]:
    """Return the good images, and the paths of the other files."""
    found = scan(folder, *arguments, **options)
    good = [seen for seen in found.values() if isinstance(seen, StoredImage)]
    return good, [path for path, seen in found.items() if not isinstance(seen, StoredImage)]


def test_a_file_changed_by_hand_is_noticed_though_its_size_is_the_same(
    start_run: Start, tmp_path: Path
) -> None:
    candidate, other = real(1, image_format="BMP"), real(2, image_format="BMP")
    assert len(candidate.data) == len(other.data)
    start_run(one_folder(tmp_path)).keep(candidate)
    (tmp_path / candidate.file_name).write_bytes(other.data)
    folder = start_run(one_folder(tmp_path)).folder
    assert (folder.has(candidate.sha256), folder.has(other.sha256)) == (False, True)
    assert (folder.num_before, folder.unusable) == (1, [])


@pytest.mark.parametrize("damaged", [real(1).data[:-9], bytes(9999), b"", b"<html>"])
def test_a_corrupted_file_is_named_and_not_counted(
    start_run: Start, tmp_path: Path, caplog: pytest.LogCaptureFixture, damaged: bytes
) -> None:
    run = start_run(one_folder(tmp_path, 2))
    for seed in (1, 2):
        run.keep(real(seed))
    path = tmp_path / real(1).file_name
    path.write_bytes(damaged)
    folder = start_run(one_folder(tmp_path, 2)).folder
    assert (folder.num_before, folder.num_missing, folder.unusable) == (1, 1, [path])
    assert str(path) in caplog.text
    assert path.exists()
    assert isinstance(folder.place(real(1)), Destination)


def test_what_is_too_small_or_a_copy_does_not_count(start_run: Start, tmp_path: Path) -> None:
    run = start_run(one_folder(tmp_path))
    run.keep(real(1, 80))
    run.keep(real(2, 400))
    (tmp_path / "copy.jpg").write_bytes(real(2, 400).data)
    folder = start_run(one_folder(tmp_path), limits=images.Limits(min_side=64)).folder
    assert folder.num_before == 1
    assert folder.unusable == [tmp_path / real(1, 80).file_name]
    assert start_run(one_folder(tmp_path)).folder.num_before == 2


def test_only_files_that_show_are_looked_at_in_order_of_their_names(tmp_path: Path) -> None:
    for name in ("c.jpg", ".hidden.jpg", ".partial-x", "sub/a.jpg", "a.jpg", ".sub/b.jpg", "b.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(encode(photo(1)))
    (tmp_path / "nowhere.jpg").symlink_to(tmp_path / "gone")
    for name in "cab":
        (tmp_path / f"{name}.txt").write_text("no image")
    good, unusable = scanned(tmp_path, LIMITS)
    assert [image.path.name for image in good] == ["a.jpg", "b.jpg", "c.jpg"]
    assert [path.name for path in unusable] == ["a.txt", "b.txt", "c.txt"]
    assert not good[0].is_ours


def test_what_the_journal_knows_is_not_decoded(start_run: Start, tmp_path: Path) -> None:
    candidate = made_up(1)  # which nothing could decode
    start_run(one_folder(tmp_path)).keep(candidate)
    good, _ = scanned(tmp_path, LIMITS)
    assert [(one.sha256, one.num_pixels, one.is_ours) for one in good] == [
        (candidate.sha256, 8000, True)
    ]
    (tmp_path / candidate.file_name).write_bytes(candidate.data[::-1])
    assert scanned(tmp_path, LIMITS)[1] == [tmp_path / candidate.file_name]
    assert len(scanned(tmp_path, LIMITS, trusting=True)[0]) == 1


def test_a_line_that_is_not_as_we_write_it_does_no_harm(start_run: Start, tmp_path: Path) -> None:
    start_run(one_folder(tmp_path)).keep(real(1))
    line = next(read_entries(tmp_path / JOURNAL_NAME))
    changes = (
        *({"fingerprint": text} for text in ("zz" * fingerprints.NUM_BYTES, "00", None)),
        *({"width": "240"}, {"bytes": None}, {"path": 5}, {"sha256": ["a"]}, {"replaces": 7}),
        {"status": DUPLICATE},
    )
    for change in changes:
        write_journal(tmp_path, [{**line, **change}])
        good, unusable = scanned(tmp_path, LIMITS)
        assert ([image.sha256 for image in good], unusable) == ([real(1).sha256], [])
        assert start_run(one_folder(tmp_path)).folder.num_before == 1


def test_a_file_that_has_gone_meanwhile_is_one_image_less(start_run: Start, tmp_path: Path) -> None:
    start_run(one_folder(tmp_path)).keep(real(1))
    entry = next(read_entries(tmp_path / JOURNAL_NAME))
    for line in (entry, None):
        with pytest.raises(ImageError, match=r"gone\.jpg"):
            class_folder._read(tmp_path / "gone.jpg", line, LIMITS, trusting=False)
