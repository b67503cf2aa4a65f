"""The class folder: exact counts, no image on two sides, copies refused or named."""

import concurrent.futures
import json
import random
from collections.abc import Callable
from pathlib import Path

import pytest
from filling import (
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

from imagesieve.collecting.class_folder import (
    DUPLICATE,
    NEAR_DUPLICATE,
    NO_ROOM,
    OTHER_SPLIT,
    ClassFolder,
    Destination,
    Refusal,
)
from imagesieve.collecting.journal import JOURNAL_NAME, read_entries
from imagesieve.errors import OutputError


def in_threads(count: int, work: Callable[[int], object]) -> None:
    with concurrent.futures.ThreadPoolExecutor(count) as pool:
        list(pool.map(work, range(count)))


# Counts


def test_both_sides_are_filled_exactly(tmp_path: Path) -> None:
    target = split(tmp_path, 100, 0.2)
    folder = ClassFolder(target)
    images = [made_up(number) for number in range(500)]
    decisions: list[Destination | Refusal] = []
    in_threads(16, lambda n: decisions.extend(folder.place(one) for one in images[n::16]))
    given = [d.path.parent for d in decisions if isinstance(d, Destination)]
    assert [given.count(side.folder) for side in target.sides] == [80, 20]
    assert [d.reason for d in decisions if isinstance(d, Refusal)] == [NO_ROOM] * 400
    assert folder.num_missing == 0


def test_the_same_image_from_many_threads_has_one_place(tmp_path: Path) -> None:
    folder = ClassFolder(split(tmp_path))
    images = [made_up(number) for number in range(30)]
    decisions: list[Destination | Refusal] = []
    in_threads(16, lambda _: decisions.extend(folder.place(one) for one in images))
    refusals = [d for d in decisions if isinstance(d, Refusal)]
    assert len(decisions) - len(refusals) == 30
    assert {refusal.reason for refusal in refusals} == {DUPLICATE}


def test_a_place_that_is_given_back_is_free_again(tmp_path: Path) -> None:
    folder = ClassFolder(one_folder(tmp_path, 1))
    first = made_up(1)
    place = folder.place(first)
    assert isinstance(place, Destination)
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
def test_each_side_gets_its_part(tmp_path: Path, fraction: float) -> None:
    target = split(tmp_path, fraction=fraction)
    folder = ClassFolder(target)
    given = [folder_of(folder.place(made_up(number))) for number in range(1000)]
    assert given.count(target.sides[1].folder) / 1000 == pytest.approx(fraction, abs=0.02)


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


def test_the_content_alone_prefers_a_side(tmp_path: Path) -> None:
    images = [made_up(number) for number in range(300)]
    folder = ClassFolder(split(tmp_path))
    sides = {one.sha256: folder_of(folder.place(one)) for one in images}
    assert len(set(sides.values())) == 2
    fresh = ClassFolder(split(tmp_path))
    for one in reversed(images):
        assert folder_of(fresh.place(one)) == sides[one.sha256]


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
        assert refusal.twin is not None
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
    assert refusal.twin is not None
    assert refusal.twin.path.parent == tmp_path / there / "x"
    assert folder.has_anywhere(refusal.twin.sha256)
    assert folder.num_missing == MANY
    assert isinstance(folder.place(real(2)), Destination)


@pytest.mark.parametrize("width", [240, 120, 480])
def test_a_copy_of_another_class_is_kept_with_a_warning(
    start_run: Start, tmp_path: Path, width: int
) -> None:
    start_run(one_folder(tmp_path / "train" / "a")).keep(real(1))
    place = start_run(one_folder(tmp_path / "train" / "b")).folder.place(real(1, width))
    assert isinstance(place, Destination)
    assert place.also_in == (tmp_path / "train" / "a" / real(1).file_name,)
    assert place.replaces is None


def test_each_other_class_is_named_once(start_run: Start, tmp_path: Path) -> None:
    for name in ("a", "b"):
        start_run(one_folder(tmp_path / "train" / name)).keep(real(1))
    folder = start_run(one_folder(tmp_path / "train" / "c")).folder
    place = folder.place(real(1, 120))
    assert isinstance(place, Destination)
    assert place.also_in == tuple(
        tmp_path / "train" / name / real(1).file_name for name in ("a", "b")
    )


def test_folders_outside_a_data_set_are_compared_when_they_are_named(
    start_run: Start, tmp_path: Path
) -> None:
    start_run(one_folder(tmp_path / "a")).keep(real(1))
    alone = start_run(one_folder(tmp_path / "b")).folder.place(real(1))
    assert isinstance(alone, Destination)
    assert alone.also_in == ()
    named = start_run(one_folder(tmp_path / "b"), others=[tmp_path / "a", tmp_path / "b"]).folder
    place = named.place(real(1))
    assert isinstance(place, Destination)
    assert place.also_in == (tmp_path / "a" / real(1).file_name,)


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
    small, other = real(1, 100), real(2)
    folder = folder_of(run.keep(small))
    run.keep(other)
    assert run.folder.num_missing == 0
    large = real(1, 240)
    place = run.keep(large)
    assert folder_of(place) == folder
    assert place.replaces.sha256 == small.sha256
    assert (run.folder.has(small.sha256), run.folder.has(large.sha256)) == (False, True)
    assert names_in(folder) == {large.file_name}
    assert reason_of(run.keep(small)) == NEAR_DUPLICATE
    larger = run.keep(real(1, 400))
    assert folder_of(larger) == folder
    again = start_run(split(tmp_path, 2, 0.5)).folder
    assert (again.num_before, again.num_missing) == (2, 0)


def test_a_little_larger_is_not_worth_it(start_run: Start, tmp_path: Path) -> None:
    run = start_run(one_folder(tmp_path))
    run.keep(real(1, 200))
    assert reason_of(run.folder.place(real(1, 216))) == NEAR_DUPLICATE
    assert isinstance(run.folder.place(real(1, 224)), Destination)


def test_a_users_own_file_is_never_replaced(start_run: Start, tmp_path: Path) -> None:
    (tmp_path / "mine.jpg").write_bytes(encode(photo(1, 80)))
    run = start_run(one_folder(tmp_path))
    assert reason_of(run.folder.place(real(1, 400))) == NEAR_DUPLICATE


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
    small = real(1, 80)
    place = run.note(small)
    assert isinstance(place, Destination)
    assert reason_of(run.folder.place(real(1, 240))) == NEAR_DUPLICATE
    run.folder.write(small, place, lambda: None)
    assert isinstance(run.folder.place(real(1, 240)), Destination)


def test_two_smaller_ones_are_not_replaced_by_one(start_run: Start, tmp_path: Path) -> None:
    run = start_run(one_folder(tmp_path), keeps_near_duplicates=True)
    run.keep(real(1, 80))
    run.keep(real(1, 100))
    assert reason_of(start_run(one_folder(tmp_path)).folder.place(real(1, 240))) == NEAR_DUPLICATE


def test_a_larger_copy_that_could_not_be_written_leaves_the_smaller(
    start_run: Start, tmp_path: Path
) -> None:
    run = start_run(one_folder(tmp_path, 1))
    small, large = real(1, 80), real(1, 240)
    run.keep(small)
    place = run.folder.place(large)
    assert isinstance(place, Destination)
    place.path.mkdir()  # in the way
    with pytest.raises(OutputError):
        run.folder.write(large, place, lambda: None)
    assert (run.folder.has(small.sha256), run.folder.has(large.sha256)) == (True, False)
    assert run.folder.num_missing == 0
    assert (tmp_path / small.file_name).exists()
    place.path.rmdir()
    again = run.folder.place(large)
    assert isinstance(again, Destination), "the second attempt is as good as the first"
    assert again.replaces == place.replaces
    run.folder.write(large, again, lambda: None)
    assert isinstance(run.folder.place(real(1, 400)), Destination)


# Killed half-way


def test_a_replacement_that_was_cut_short_is_finished(start_run: Start, tmp_path: Path) -> None:
    run = start_run(one_folder(tmp_path, 5))
    small, large = real(1, 80), real(1, 240)
    run.keep(small)
    run.note(large)
    (tmp_path / large.file_name).write_bytes(large.data)  # killed before the other was removed
    assert start_run(one_folder(tmp_path, 5)).folder.num_before == 1
    assert names_in(tmp_path) == {large.file_name}


def test_a_replacement_that_was_never_written_leaves_the_smaller(
    start_run: Start, tmp_path: Path
) -> None:
    run = start_run(one_folder(tmp_path, 5))
    small, large = real(1, 80), real(1, 240)
    run.keep(small)
    run.note(large)
    run = start_run(one_folder(tmp_path, 5))
    assert (run.folder.num_before, names_in(tmp_path)) == (1, {small.file_name})
    assert folder_of(run.keep(large)) == tmp_path
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
    replaced = edited.file_name if replaced == "edited" else replaced
    lines = [dict(entry) for entry in read_entries(folder / JOURNAL_NAME)]
    lines[-1]["replaces"] = replaced
    (folder / JOURNAL_NAME).write_text("".join(json.dumps(line) + "\n" for line in lines))
    start_run(one_folder(folder))
    assert all(path.exists() for path in mine)


def test_a_line_that_names_a_file_elsewhere_removes_nothing(
    start_run: Start, tmp_path: Path
) -> None:
    folder = tmp_path / "x"
    start_run(one_folder(folder)).keep(real(1))
    outside = tmp_path / "outside.jpg"
    outside.write_bytes(real(2).data)
    line = next(read_entries(folder / JOURNAL_NAME))
    there = {"path": "../outside.jpg", "sha256": real(2).sha256, "bytes": len(real(2).data)}
    lines = [{**line, **there}, {**line, "replaces": "../outside.jpg"}]
    (folder / JOURNAL_NAME).write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert start_run(one_folder(folder)).folder.num_before == 1
    assert outside.exists()
