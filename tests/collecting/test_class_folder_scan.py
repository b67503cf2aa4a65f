"""What lies in a folder already: read, compared with the journal, and left as it is."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from filling import LIMITS, Start, made_up, one_folder, photo, real
from painted import encode

from imagesieve import images
from imagesieve.collecting import class_folder
from imagesieve.collecting.class_folder import Destination, StoredImage, scan
from imagesieve.collecting.journal import DUPLICATE as NOTED_DUPLICATE
from imagesieve.collecting.journal import JOURNAL_NAME, read_entries
from imagesieve.errors import ImageError
from imagesieve.images import fingerprints


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
    start_run: Start,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    damage: Callable[[bytes], bytes],
) -> None:
    run = start_run(one_folder(tmp_path, 2))
    for seed in (1, 2):
        run.keep(real(seed))
    path = tmp_path / real(1).file_name
    path.write_bytes(damage(real(1).data))
    folder = start_run(one_folder(tmp_path, 2)).folder
    assert (folder.num_before, folder.num_missing, folder.unusable) == (1, 1, [path])
    assert str(path) in caplog.text
    assert path.exists()
    assert isinstance(folder.place(real(1)), Destination)


def test_a_larger_minimum_does_not_count_the_small_ones(start_run: Start, tmp_path: Path) -> None:
    run = start_run(one_folder(tmp_path))
    run.keep(real(1, 80))
    run.keep(real(2, 400))
    folder = start_run(one_folder(tmp_path), limits=images.Limits(min_side=64)).folder
    assert folder.num_before == 1
    assert folder.unusable == [tmp_path / real(1, 80).file_name]
    assert start_run(one_folder(tmp_path)).folder.num_before == 2


def test_a_copy_beside_it_does_not_count_twice(start_run: Start, tmp_path: Path) -> None:
    start_run(one_folder(tmp_path)).keep(real(1))
    (tmp_path / "copy.jpg").write_bytes(real(1).data)
    assert start_run(one_folder(tmp_path)).folder.num_before == 1


def test_only_files_that_show_are_looked_at(tmp_path: Path) -> None:
    for name in (".hidden.jpg", ".partial-x", "sub/a.jpg", "a.jpg", ".sub/b.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(encode(photo(1)))
    (tmp_path / "nowhere.jpg").symlink_to(tmp_path / "gone")
    good, unusable = scanned(tmp_path, LIMITS)
    assert ([image.path.name for image in good], unusable) == (["a.jpg"], [])
    assert not good[0].is_ours


def test_files_come_in_order_of_their_names(tmp_path: Path) -> None:
    for seed, name in enumerate("cab"):
        (tmp_path / f"{name}.jpg").write_bytes(encode(photo(seed)))
        (tmp_path / f"{name}.txt").write_text("no image")
    good, unusable = scanned(tmp_path, LIMITS)
    assert [image.path.name for image in good] == ["a.jpg", "b.jpg", "c.jpg"]
    assert [path.name for path in unusable] == ["a.txt", "b.txt", "c.txt"]


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
    start_run: Start, tmp_path: Path, change: dict[str, object]
) -> None:
    start_run(one_folder(tmp_path)).keep(real(1))
    path = tmp_path / JOURNAL_NAME
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}) + "\n")
    good, unusable = scanned(tmp_path, LIMITS)
    assert ([image.sha256 for image in good], unusable) == ([real(1).sha256], [])
    assert start_run(one_folder(tmp_path)).folder.num_before == 1


def test_a_file_that_has_gone_meanwhile_is_one_image_less(start_run: Start, tmp_path: Path) -> None:
    start_run(one_folder(tmp_path)).keep(real(1))
    entry = next(read_entries(tmp_path / JOURNAL_NAME))
    for line in (entry, None):
        with pytest.raises(ImageError, match=r"gone\.jpg"):
            class_folder._read(tmp_path / "gone.jpg", line, LIMITS, trusting=False)
