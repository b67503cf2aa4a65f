"""Collected to learned to served to corrected to learned again, seen from the page."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import requests
from browsing import choose, file
from data_folders import fill
from painted import encode, paint
from playwright.sync_api import Page, expect
from running import REPOSITORY, SECONDS, serving

PURPLE = (150, 30, 170)

# The scripts know no backbone that is small enough for a test, so they are told of one.
SCRIPT = """
import sys
from imagesieve.learning.networks import backbones
from tiny_backbone import TINY
backbones.BACKBONES[TINY.name] = TINY
import {script}
sys.exit({script}.main(sys.argv[1:]))
"""


def run(script: str, folder: Path, *options: str) -> dict[str, object]:
    """Run a training script in a process of its own, as a person would, and give its JSON."""
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT.format(script=script), "--json", "--quiet", *options],
        cwd=folder,
        env={"PYTHONPATH": f"{REPOSITORY}:{REPOSITORY / 'tests'}", "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, object] = json.loads(done.stdout)
    return found


def purple(seed: int) -> bytes:
    return encode(paint(PURPLE, seed=seed))


@pytest.mark.timeout(170)
def test_what_people_correct_is_learned_and_answered_without_a_restart(
    tab: Page, tmp_path: Path
) -> None:
    """The colour purple is red by decree: nobody told the first model."""
    data = tmp_path / "data"
    fill(data, 8)
    fill(data, 4, split="validation")
    for seed in range(4):
        (data / f"validation/red/purple-{seed}.jpg").write_bytes(purple(seed))
    few = ("--data", "data", "--views", "1", "--no-int8")
    network = ("--backbone", "Tiny", "--weights", "random", "--image-size", "32")
    first = run("trainMyDataWithKerasModel", tmp_path, *network, *few)
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

        second = run("reTrainMyDataWithKerasModel", tmp_path, *few)
        assert second["promoted"] is True
        server.wait_for("Now serving ")
        assert server.process.poll() is None
        tab.goto(server.url)
        choose(tab, file("newer.jpg", purple(200)))
        expect(tab.locator(".card .label").first).to_have_text("red")
        served = requests.get(f"{server.url}/v1/model", timeout=SECONDS).json()["name"]
    assert served != Path(str(first["version"])).name
