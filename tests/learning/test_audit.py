import shutil
from pathlib import Path

from data_folders import draw_scene, fill

from imagesieve.learning.data import audit
from imagesieve.learning.data.audit import Finding
from imagesieve.learning.data.dataset import read_dataset


def findings(folder: Path, word: str) -> list[Finding]:
    return [found for found in audit.audit(read_dataset(folder)) if word in found.message]


def test_a_sound_folder_gives_no_findings(tmp_path: Path) -> None:
    fill(tmp_path, audit.MIN_IMAGES_TO_LEARN)
    fill(tmp_path, audit.MIN_IMAGES_TO_LEARN, split="validation")
    assert audit.audit(read_dataset(tmp_path)) == []


def test_unreadable_files_are_grouped_by_reason_and_all_named(tmp_path: Path) -> None:
    fill(tmp_path, 3)
    for name, data in (("a.jpg", b""), ("b.jpg", b""), ("c.jpg", b"<svg/>")):
        (tmp_path / "train/red" / name).write_bytes(data)
    found = findings(tmp_path, "left out")
    assert sorted([path.name for path in each.paths] for each in found) == [
        ["a.jpg", "b.jpg"],
        ["c.jpg"],
    ]
    assert any(each.message.startswith("2 files are left out") for each in found)
    assert any(each.message.startswith("1 file is left out") for each in found)


def test_an_image_in_train_and_validation_is_a_leak_even_when_encoded_again(
    tmp_path: Path,
) -> None:
    fill(tmp_path, 3)
    fill(tmp_path, 3, split="validation")
    draw_scene(1).save(tmp_path / "train/red/scene.png")
    draw_scene(1).save(tmp_path / "validation/red/other-name.jpg", quality=70)
    (leak,) = findings(tmp_path, "train as well as in validation")
    assert leak.message.startswith("1 image lies in")
    assert {path.name for path in leak.paths} == {"scene.png", "other-name.jpg"}


def test_the_same_bytes_in_two_classes_are_a_contradiction(tmp_path: Path) -> None:
    fill(tmp_path, 3)
    shutil.copy(tmp_path / "train/red/000.png", tmp_path / "train/blue/copy.png")
    for name in ("red/scene.png", "blue/scene.jpg"):  # images that look alike are none
        draw_scene(1).save(tmp_path / "train" / name)
    (found,) = findings(tmp_path, "in two classes")
    assert {path.parent.name for path in found.paths} == {"red", "blue"}


def test_exact_copies_within_a_class_are_counted(tmp_path: Path) -> None:
    fill(tmp_path, 3)
    for name in ("one.png", "two.png"):
        shutil.copy(tmp_path / "train/red/001.png", tmp_path / "train/red" / name)
    (found,) = findings(tmp_path, "exact copies")
    assert found.message.startswith("2 exact copies")  # beside the image itself


def test_thin_classes_are_named_with_their_count(tmp_path: Path) -> None:
    fill(tmp_path, 25)
    fill(tmp_path, 19, split="validation")
    thin = [found.message for found in findings(tmp_path, "expect poor")]
    assert len(thin) == 3
    assert thin[0].startswith("The class 'blue' has 19 images in validation")


def test_unbalanced_classes_are_told_with_their_ratio(tmp_path: Path) -> None:
    fill(tmp_path, 8)
    fill(tmp_path, 2, split="validation")
    assert findings(tmp_path, "largest class") == []
    fill(tmp_path, 12, first=8, classes=("red",))
    (found,) = findings(tmp_path, "largest class")
    assert "2.5 times" in found.message


def test_describe_shows_some_paths_and_counts_the_rest() -> None:
    found = Finding("Trouble.", tuple(Path(f"{number}.png") for number in range(8)))
    lines = audit.describe(found)
    assert lines[0] == "Trouble."
    assert lines[1:6] == [f"  {number}.png" for number in range(5)]
    assert "3 more" in lines[6]
