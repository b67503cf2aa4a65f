import dataclasses
import html.parser
import os
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from imagesieve.learning.export import report
from imagesieve.model import versions


class Page(html.parser.HTMLParser):
    """Collects the tags' attributes, and the text."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.attributes: list[tuple[str, str, str]] = []
        self.texts: list[str] = []
        self.feed(source)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes += [(tag, name, value or "") for name, value in attrs]

    def handle_data(self, data: str) -> None:
        self.texts.append(data.strip())


@pytest.fixture(scope="module")
def source(tiny_run: Any) -> str:
    return (tiny_run.version.path / versions.REPORT).read_text(encoding="utf-8")


def write(tiny_run: Any, path: Path, probabilities: np.ndarray, **changes: Any) -> Page:
    trained = dataclasses.replace(tiny_run.trained, probabilities=probabilities)
    dataset = dataclasses.replace(tiny_run.dataset, **changes)
    version = tiny_run.version
    report.write(path, version.name, version.manifest, trained, dataset)
    return Page(path.read_text(encoding="utf-8"))


def test_class_names_are_escaped(source: str) -> None:
    assert "<b>x" not in source
    assert "&lt;b&gt;x" in source
    assert "<b>x" in Page(source).texts


def test_accuracy_classes_engines_and_settings_are_told(tiny_run: Any, source: str) -> None:
    texts = " ".join(Page(source).texts)
    manifest = tiny_run.version.manifest
    assert f"{100 * manifest.metrics['accuracy']:.1f} %" in texts
    assert "9 validation images" in texts
    for word in ("SmallCNN", "48×48 pixels", "blue", "green", "openvino-f32", "epochs"):
        assert word in texts
    ((path, reason),) = tiny_run.dataset.rejects.items()
    assert str(path) in texts
    assert reason in texts


def test_the_page_needs_nothing_from_elsewhere(source: str) -> None:
    page = Page(source)
    assert not {tag for tag, _, _ in page.attributes} & {"script", "link", "iframe", "base"}
    for _, name, value in page.attributes:
        if name in ("src", "href", "xlink:href", "srcset", "action", "data", "poster"):
            assert value.startswith(("data:image/", "#")), value
        assert not name.startswith("on")
    assert not re.search(r"url\(\s*['\"]?(?!#)|@import", source)


def test_the_curves_are_drawn_for_each_fit(source: str) -> None:
    assert source.count("<svg") == 1
    assert "network: loss" in source
    assert "network: accuracy" in source


def test_mistakes_are_shown_with_their_image_the_most_confident_first(
    tiny_run: Any, tmp_path: Path
) -> None:
    labels = [sample.class_index for sample in tiny_run.dataset.validation]
    probabilities = np.eye(3)[labels] * 0.8 + 0.2 / 3
    probabilities[2] = (0.1, 0.6, 0.3)  # of class 0
    probabilities[4] = (0.9, 0.05, 0.05)  # of class 1
    page = write(tiny_run, tmp_path / "report.html", probabilities)
    captions = " ".join(page.texts)
    first, second = (
        captions.index(str(tiny_run.dataset.validation[number].path)) for number in (4, 2)
    )
    assert first < second
    assert captions.count("called ") == 2 + captions.count("called →")
    thumbnails = [value for tag, name, value in page.attributes if (tag, name) == ("img", "src")]
    assert len(thumbnails) == 2


def test_a_mistake_in_a_file_whose_name_is_no_utf8_is_shown(tiny_run: Any, tmp_path: Path) -> None:
    odd = tmp_path / os.fsdecode(b"no\xff.png")
    first, *others = tiny_run.dataset.validation
    shutil.copy(first.path, odd)
    validation = (dataclasses.replace(first, path=odd), *others)
    probabilities = np.tile([0.2, 0.2, 0.6], (len(validation), 1))
    page = write(tiny_run, tmp_path / "report.html", probabilities, validation=validation)
    assert any("no\\udcff.png" in text for text in page.texts)
