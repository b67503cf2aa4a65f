"""A larger copy takes the place of a smaller one of ours, also after a run was killed."""

import json
from pathlib import Path

import pytest
from filling import Start, folder_of, names_in, one_folder, photo, real, reason_of, split
from painted import encode

from imagesieve.collecting.class_folder import DUPLICATE, NEAR_DUPLICATE, Destination
from imagesieve.collecting.journal import JOURNAL_NAME, read_entries
from imagesieve.errors import OutputError

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
