"""Collected to learned to served to corrected to learned again, seen from the page."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import requests
from browsing import choose, file
from data_folders import fill
from painted import encode, paint
from playwright.sync_api import Page, expect
from running import SECONDS, serving
from tiny_backbone import TINY

import reTrainMyDataWithKerasModel
import trainMyDataWithKerasModel
from imagesieve.learning.networks import backbones

PURPLE = (150, 30, 170)


def purple(seed: int) -> bytes:
    return encode(paint(PURPLE, seed=seed))


@pytest.fixture
def run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., dict[str, Any]]:
    """Return a function that runs a training script in this process and returns its JSON."""
    monkeypatch.chdir(tmp_path)
    # The scripts know no backbone that is small enough for a test.
    monkeypatch.setitem(backbones.BACKBONES, TINY.name, TINY)

    def run_one(main: Callable[[list[str]], int], *options: str) -> dict[str, Any]:
        assert main(["--json", "--quiet", *options]) == 0
        return json.loads(capsys.readouterr().out)

    return run_one


@pytest.mark.timeout(170)
@pytest.mark.usefixtures("_loggers_restored")
def test_what_people_correct_is_learned_and_answered_without_a_restart(
    tab: Page, tmp_path: Path, run: Callable[..., dict[str, Any]]
) -> None:
    """The colour purple is red by decree: nobody told the first model."""
    data = tmp_path / "data"
    fill(data, 8)
    fill(data, 4, split="validation")
    for seed in range(4):
        (data / f"validation/red/purple-{seed}.jpg").write_bytes(purple(seed))
    few = ("--data", "data", "--views", "1", "--no-int8")
    network = ("--backbone", "Tiny", "--weights", "random", "--image-size", "32")
    first = run(trainMyDataWithKerasModel.main, *network, *few)
    # Whatever the model says, it shall not be sure enough: all wait for review.
    unsure = ("--decision", "confident", "--min-confidence", "0.9999")
    with serving(tmp_path, tmp_path / "modelFile", *unsure) as server:
        tab.goto(server.url)
        choose(tab, file("new.jpg", purple(100)))
        card = tab.locator(".card").first
        expect(card.locator(".label")).not_to_have_text("Waiting …")
        expect(card.locator(".label")).not_to_have_text("red")
        # One is corrected on its card, five more on the page for that, by keyboard alone.
        card.locator(".wrong").click()
        card.get_by_role("button", name="red", exact=True).click()
        expect(card.locator(".corrected")).to_be_visible()
        for seed in range(101, 106):
            answer = requests.post(f"{server.url}/v1/predict", data=purple(seed), timeout=SECONDS)
            assert answer.json()["label"] != "red"
            assert answer.json()["held"] is True
        tab.goto(f"{server.url}/review")
        classes = requests.get(f"{server.url}/v1/model", timeout=SECONDS).json()["classes"]
        for number in range(5):
            progress = f"{5 - number} waiting · {1 + number} corrected"
            expect(tab.locator("#progress")).to_have_text(progress)
            expect(tab.locator("#picture")).to_be_visible()
            tab.keyboard.press(str(1 + classes.index("red")))
        expect(tab.locator("#progress")).to_have_text("0 waiting · 6 corrected")
        stored = sorted((data / "feedback/red").glob("*.jpg"))
        assert len(stored) == 6

        second = run(reTrainMyDataWithKerasModel.main, *few)
        assert second["promoted"] is True
        server.wait_for("Now serving ")
        assert server.process.poll() is None
        tab.goto(server.url)
        choose(tab, file("newer.jpg", purple(200)))
        expect(tab.locator(".card .label").first).to_have_text("red")
        served = requests.get(f"{server.url}/v1/model", timeout=SECONDS).json()["name"]
    assert served != Path(first["version"]).name
