"""Images that people corrected: what is taken in, what is left out, and that it is learned."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from data_folders import draw_scene, fill
from feedback import Feedback
from painted import COLOURS, encode, paint
from PIL import Image
from tiny_backbone import TINY

from imagesieve.errors import DataError
from imagesieve.learning.data import corrections
from imagesieve.learning.data.dataset import Dataset, read_dataset
from imagesieve.learning.networks import backbones
from imagesieve.model import versions
from imagesieve.prediction.predictor import Predictor


@pytest.fixture(scope="module")
def painted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a data folder of three colours, 8 training and 3 validation images each."""
    return fill(fill(tmp_path_factory.mktemp("painted"), 8), 3, split="validation")


@pytest.fixture
def data(painted: Path, tmp_path: Path) -> Path:
    return shutil.copytree(painted, tmp_path / "data")


@pytest.fixture
def feedback(data: Path) -> Feedback:
    return Feedback(data / "feedback")


def take_in(data: Path, weight: float = 2.0, max_share: float = 0.5) -> Dataset:
    dataset = read_dataset(data)
    return corrections.take_in(dataset, data / "feedback", weight=weight, max_share=max_share)


def new(name: str, number: int = 0) -> bytes:
    """Return an image of a colour that lies in no folder."""
    return encode(paint(COLOURS[name], seed=7000 + number), "PNG")


def flat(seed: int) -> Image.Image:
    """Paint hardly more than a colour: encoded anew, such an image is not known again."""
    noise = np.random.default_rng(seed).integers(-3, 4, (48, 64, 3))
    return Image.fromarray((np.array(COLOURS["blue"]) + noise).astype(np.uint8))


def reasons(dataset: Dataset) -> dict[Path, str]:
    return dict(dataset.rejects)


def paths(samples: tuple[Any, ...]) -> set[Path]:
    return {sample.path for sample in samples}


def test_corrections_are_learned_from_with_their_weight_and_never_measured_on(
    data: Path, feedback: Feedback
) -> None:
    plain = read_dataset(data)
    assert take_in(data).digest() == plain.digest()
    taken = {feedback.correct(new("red", number), "blue") for number in range(2)}
    found = take_in(data, weight=3.0)
    assert paths(found.corrections) == taken
    assert found.train == (*plain.train, *found.corrections)
    assert {sample.weight for sample in found.corrections} == {3.0}
    assert {sample.weight for sample in plain.train} == {1.0}
    assert found.counts(found.corrections) == [2, 0, 0]
    assert (found.validation, found.test, found.classes) == (plain.validation, (), plain.classes)
    assert not found.rejects
    weights = (take_in(data, weight=weight) for weight in (1.0, 2.5))
    assert len({x.digest() for x in (plain, found, *weights)}) == 4


def test_a_split_by_content_is_not_moved_by_corrections(tmp_path: Path) -> None:
    before = read_dataset(fill(tmp_path, 10))
    remembered = (tmp_path / ".split.json").read_bytes()
    feedback = Feedback(tmp_path / "feedback")
    for number in range(4):
        feedback.correct(new("red", number), "red")
    after = take_in(tmp_path)
    assert after.validation == before.validation
    assert len(after.corrections) == 4
    assert (tmp_path / ".split.json").read_bytes() == remembered


@pytest.mark.parametrize(
    ("split", "how"),
    [("validation", "copied"), ("test", "scaled"), ("validation", "in the history")],
)
def test_what_is_measured_on_is_not_learned_from(
    data: Path, feedback: Feedback, split: str, how: str
) -> None:
    fill(data, 2, split="test")
    scene = flat(1) if how == "in the history" else draw_scene(1, (400, 300))
    path = data / split / "blue/scene.png"
    scene.save(path)
    sent = encode(scene.resize((320, 240))) if how == "scaled" else path.read_bytes()
    right, wrong = feedback.correct(sent, "blue"), feedback.correct(new("blue", 1), "blue")
    if how == "copied":
        feedback.journal.unlink()
        shutil.copy(path, right)
    relabelled = feedback.correct((data / "validation/green/000.png").read_bytes(), "red")
    found = take_in(data)
    assert paths(found.corrections) == {wrong}
    reason = "the same or nearly so as an image in validation or test"
    advice = ", where it has another class: move it there if the correction is right"
    assert reasons(found) == {right: reason, relabelled: reason + advice}
    assert found.counts(found.validation)[1] == 3


@pytest.mark.parametrize("has_history", [True, False])
def test_a_correction_wins_over_the_class_that_its_original_has_in_train(
    data: Path, feedback: Feedback, has_history: bool
) -> None:
    plain, scene, small = (data / f"train/blue/{name}.png" for name in ("plain", "scene", "small"))
    flat(1).save(plain)
    draw_scene(1, (400, 300)).save(scene)
    draw_scene(1, (160, 120)).save(small)
    untouched = feedback.correct((data / "train/red/000.png").read_bytes(), "red")
    for path in (plain, scene):
        feedback.correct(path.read_bytes(), "red")
    if not has_history:
        feedback.journal.unlink()
    found = take_in(data)
    outdated = {plain, scene, small} if has_history else {scene, small}
    assert reasons(found) == dict.fromkeys(outdated, f"corrected to 'red' in {data / 'feedback'}")
    assert not paths(found.train) & outdated
    assert {untouched, data / "train/red/000.png"} <= paths(found.train)
    assert all(path.exists() for path in outdated)


@pytest.mark.parametrize(
    ("weight", "max_share", "count"),
    [(1.0, 0.5, 8), (3.0, 0.5, 2), (2.0, 0.1, 0), (2.0, 1.0, 9)],
)
def test_the_newest_are_taken_up_to_a_share_of_the_class_s_weight(
    data: Path, feedback: Feedback, weight: float, max_share: float, count: int
) -> None:
    sent = [feedback.correct(new("red", number), "red") for number in range(9)]
    other = feedback.correct(new("green"), "blue")
    found = take_in(data, weight, max_share)
    assert paths(found.corrections) - {other} == set(sent[9 - count :])
    left_out = {path: reason for path, reason in reasons(found).items() if path != other}
    assert set(left_out) == set(sent[: 9 - count])
    assert all("--feedback-max-share" in reason for reason in left_out.values())
    share = weight * count / (weight * count + 8)
    assert share <= max_share or max_share == 1


def test_an_image_on_which_the_model_was_right_counts_once(data: Path, feedback: Feedback) -> None:
    said = [("red", "red"), ("red", "blue"), ("red", None)]
    sent = [
        feedback.correct(new("red", number), label, predicted)
        for number, (label, predicted) in enumerate(said)
    ]
    weights = {sample.path: sample.weight for sample in take_in(data, 2.5, 1.0).corrections}
    assert [weights[path] for path in sent] == [1.0, 2.5, 2.5]
    found = take_in(data, 2.5, 0.4)  # 0.4 of the weight is 5.33 beside 8 others
    assert paths(found.corrections) == set(sent[1:])


def test_an_older_file_that_was_corrected_again_counts_as_new(
    data: Path, feedback: Feedback
) -> None:
    first = feedback.correct(new("red", 0), "red")
    for number in (1, 2, 3, 4):
        feedback.correct(new("red", number), "red")
    feedback.note("correct", new("red", 0), "red")
    assert first in paths(take_in(data).corrections)


def test_without_a_history_images_are_taken_with_a_warning_and_count_as_the_oldest(
    data: Path, feedback: Feedback, caplog: pytest.LogCaptureFixture
) -> None:
    known = [feedback.correct(new("red", number), "red") for number in range(3)]
    unknown = [feedback.store(new("red", number), "red") for number in range(3, 5)]
    unknown.append(shutil.copy(known[0], data / "feedback/red/by-hand.jpg"))
    found = take_in(data)
    assert paths(found.corrections) > set(known)
    assert len(paths(found.corrections) & set(unknown)) == 1
    assert "3 of 6 corrections are not in the history" in caplog.text
    feedback.journal.unlink()
    assert len(take_in(data).corrections) == 4
    assert "6 of 6 corrections are not in the history" in caplog.text


def test_unreadable_corrections_are_listed_like_all_others(data: Path, feedback: Feedback) -> None:
    good, bad = (feedback.correct(new("red", number), "red") for number in range(2))
    bad.write_bytes(bad.read_bytes()[:200])
    (data / "train/red/half.png").write_bytes(b"?")
    found = take_in(data)
    assert paths(found.corrections) == {good}
    assert set(reasons(found)) == {bad, data / "train/red/half.png"}


def test_a_folder_of_corrections_makes_no_class_and_hidden_files_are_none(
    data: Path, feedback: Feedback
) -> None:
    path, amber = feedback.correct(new("red"), "red"), feedback.correct(new("blue"), "amber")
    (data / "feedback/empty").mkdir()
    shutil.copytree(path.parent, data / "feedback/.held/red")
    shutil.copy(path, path.with_name(".partial-0123"))
    found = take_in(data)
    assert found.classes == ("blue", "green", "red")
    assert paths(found.corrections) == {path}
    reason = "'amber' is not a class of train, and corrections alone make none"
    assert reasons(found) == {amber: reason}


def test_of_an_image_in_two_classes_the_one_of_the_history_counts(
    data: Path, feedback: Feedback
) -> None:
    sent = new("green")
    stale, right = feedback.correct(sent, "blue"), feedback.correct(sent, "red")
    found = take_in(data)
    assert paths(found.corrections) == {right}
    assert reasons(found) == {stale: "corrected to 'red' since"}
    right.unlink()  # without it, the class of the folder counts
    assert take_in(data).counts(take_in(data).corrections) == [1, 0, 0]


def test_a_rejected_image_is_left_out_until_that_is_undone_but_measured_on(
    data: Path, feedback: Feedback, caplog: pytest.LogCaptureFixture
) -> None:
    path, measured = data / "train/blue/000.png", data / "validation/blue/000.png"
    stored = feedback.correct(new("red"), "red")
    for image in (path.read_bytes(), measured.read_bytes(), new("red")):
        feedback.note("reject", image)
    found = take_in(data)
    assert reasons(found) == dict.fromkeys((path, stored), f"rejected in {data / 'feedback'}")
    assert found.counts(found.train) == [7, 8, 8]
    assert found.corrections == ()
    assert found.validation == read_dataset(data).validation
    assert f"{measured} was rejected" in caplog.text
    feedback.note("undo", path.read_bytes())
    assert path in paths(take_in(data).train)


def test_a_class_that_is_corrected_away_is_an_error(data: Path, feedback: Feedback) -> None:
    for path in sorted((data / "train/blue").iterdir()):
        feedback.correct(path.read_bytes(), "red")
    with pytest.raises(DataError, match=r"no image in .*blue is left .*--no-feedback"):
        take_in(data)


def test_a_correction_joins_the_group_of_its_near_duplicates(
    data: Path, feedback: Feedback
) -> None:
    for number in (1, 2, 3):
        draw_scene(number).save(data / f"train/red/scene-{number}.png")
    known = feedback.correct(encode(draw_scene(1, (120, 90))), "red")
    alone = [feedback.correct(encode(draw_scene(9, size)), "red") for size in ((96, 72), (80, 60))]
    found = take_in(data, 1.0, 1.0)
    groups = {sample.path: sample.group for sample in found.train}
    assert groups[known] == groups[data / "train/red/scene-1.png"]
    assert groups[alone[0]] == groups[alone[1]]
    assert len(set(groups.values())) == len(groups) - 2
    assert found.train[-3:] == found.corrections


PURPLE = (150, 30, 170)


def predict(version: versions.ModelVersion, images: list[bytes]) -> list[str]:
    predictor = Predictor.load(version.path)
    return [predictor.predict(predictor.decode(image)).label for image in images]


@pytest.mark.usefixtures("_loggers_restored")
def test_a_retraining_learns_what_people_corrected_and_its_version_is_used(
    data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The colour purple is red by decree: nobody told the first model."""
    import reTrainMyDataWithKerasModel
    import trainMyDataWithKerasModel

    train, retrain = trainMyDataWithKerasModel.main, reTrainMyDataWithKerasModel.main
    monkeypatch.chdir(data.parent)
    monkeypatch.setitem(backbones.BACKBONES, TINY.name, TINY)
    purple = [encode(paint(PURPLE, seed=seed)) for seed in range(20)]
    for number, image in enumerate(purple[:4]):
        (data / f"validation/red/purple-{number}.jpg").write_bytes(image)
    network = ["--backbone", TINY.name, "--weights", "random", "--image-size", "32"]
    few = ["--data", "data", "--views", "1", "--no-int8"]
    assert train([*network, *few, "--quiet"]) == 0
    before = versions.load(Path("modelFile"))
    assert before.manifest.data["corrections"] == {"blue": 0, "green": 0, "red": 0}
    assert "correction" not in capsys.readouterr().out
    assert "red" not in predict(before, purple[16:])

    feedback = Feedback(data / "feedback")
    for image in purple[4:8]:
        feedback.correct(image, "red")
    feedback.correct(purple[0], "red")
    assert retrain(few) == 0
    after = versions.load(Path("modelFile"))
    assert after.manifest.parent == before.name
    assert predict(after, purple[16:]) == ["red"] * 4
    assert after.manifest.data["corrections"] == {"blue": 0, "green": 0, "red": 4}
    assert after.manifest.data["train"] == {"blue": 8, "green": 8, "red": 12}
    assert after.manifest.data["fingerprint"] == take_in(Path("data")).digest()
    told = capsys.readouterr()
    assert told.out.endswith(", trained on 24 images and 4 corrections from data/feedback\n")
    assert "In train are 4 corrections from data/feedback (red 4), which count as 8" in told.err
    assert "1 file is left out: the same or nearly so as an image in validation" in told.err
    assert "4\nare corrections that people made" in (after.path / versions.REPORT).read_text()


@pytest.mark.usefixtures("_loggers_restored")
@pytest.mark.parametrize(
    ("options", "count"),
    [((), 2), (("--no-feedback",), 0), (("--feedback", "elsewhere"), 1)],
)
def test_the_check_of_the_data_counts_corrections(
    data: Path,
    feedback: Feedback,
    options: tuple[str, ...],
    count: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    import trainMyDataWithKerasModel

    monkeypatch.chdir(data.parent)
    for number in range(2):
        feedback.correct(new("red", number), "red")
    Feedback(Path("elsewhere")).correct(new("red", 5), "red")
    assert trainMyDataWithKerasModel.main(["--check-only", "--json", *options]) == 0
    value = json.loads(capsys.readouterr().out)
    assert (value["corrections"], value["train"]) == (count, 24 + count)
