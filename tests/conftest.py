"""Small real inputs that many tests share: painted images, and a model version without Keras."""

import logging
import signal
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from painted import COLOURS

from imagesieve import files, logs
from imagesieve.model import engines, golden, versions
from imagesieve.model.decisions import DecisionPolicy

LONGEST = (
    "test_training_scripts.py",
    "test_backbones.py",
    "test_attack_table.py",
    "test_schemathesis.py",
)


def pytest_configure() -> None:
    """Let the programs under test hear Ctrl-C.

    A shell that starts the tests in the background has them ignore SIGINT, which every child
    process would inherit.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the files that take longest, so that two processes end at about the same time."""
    items.sort(key=lambda item: item.path.name not in LONGEST)


@pytest.fixture(autouse=True)
def _loopback_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail any attempt of a test to leave this machine."""
    connect = socket.socket.connect

    def guarded(self: socket.socket, address: object) -> None:
        host = address[0] if isinstance(address, tuple) else ""
        if self.family in (socket.AF_INET, socket.AF_INET6) and not (
            host.startswith("127.") or host in ("::1", "localhost")
        ):
            self.close()  # the code under test would leave it open
            raise AssertionError(f"a test tried to reach {address}")
        connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", guarded)


@pytest.fixture
def _loggers_restored() -> Iterator[None]:
    """Put the loggers back: scripts take them over, and pytest listens on the root logger."""
    loggers = [logging.getLogger(), logging.getLogger("imagesieve")]
    before = [(logger, logger.handlers[:], logger.level) for logger in loggers]
    for logger in loggers:
        logger.handlers = []
    yield
    for logger, handlers, level in before:
        logs._remove_handlers(logger)
        logger.handlers = handlers
        logger.setLevel(level)


@pytest.fixture(scope="session")
def make_version(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Return a function that writes a model version which tells colours apart, in OpenVINO alone.

    It averages each channel and compares the averages, so it is a real model that runs in
    milliseconds and needs no TensorFlow to be made. Optional: the name before the time, `softness`
    of its answers, and `golden`, which gets the model's answers to golden images, one of each
    colour, and gives those to store. All other arguments go into the manifest.
    """

    def make(
        model_dir: Path | None = None,
        *,
        name: str = "colours",
        softness: float = 60,
        golden: Callable[[np.ndarray], np.ndarray] | None = None,
        **changes: object,
    ) -> Path:
        model_dir = model_dir or tmp_path_factory.mktemp("modelFile")
        path = versions.new_version_path(model_dir, name)
        manifest = versions.Manifest(
            **{
                "classes": tuple(COLOURS),
                "backbone": "SmallCNN",
                "image_size": (32, 40),
                "policy": DecisionPolicy(),
                "metrics": {"accuracy": 1.0},
                **changes,
            }
        )
        with files.new_folder(path) as partial:
            (partial / "openvino").mkdir()
            _write_colour_model(partial / versions.OPENVINO_MODEL, manifest.image_size, softness)
            if golden:
                _write_golden(partial, manifest.image_size, golden)
            versions.seal(partial, manifest)
        versions.promote(versions.load(path))
        return path

    return make


@pytest.fixture(scope="session")
def version_path(make_version: Callable[..., Path]) -> Path:
    """Return one such version, shared by all tests that only read it."""
    return make_version()


def _write_golden(
    folder: Path, image_size: tuple[int, int], answers: Callable[[np.ndarray], np.ndarray]
) -> None:
    pixels = np.stack(
        [np.full((*image_size, 3), colour, dtype=np.uint8) for colour in COLOURS.values()]
    )
    found = engines.OpenVINOEngine(folder / versions.OPENVINO_MODEL).run(pixels)
    golden.write(folder / versions.GOLDEN, golden.Golden(pixels, answers(found)))


def _write_colour_model(path: Path, image_size: tuple[int, int], softness: float) -> None:
    ov = engines.import_openvino()
    import openvino.opset13 as ops

    pixels = ops.parameter([-1, *image_size, 3], np.float32, name="pixels")
    means = ops.reduce_mean(pixels, ops.constant([1, 2], np.int64), keep_dims=False)
    scores = ops.matmul(
        means,
        ops.constant(np.eye(3, dtype=np.float32)[:, ::-1] / np.float32(softness)),
        False,
        False,
    )
    ov.save_model(ov.Model([ops.softmax(scores, 1)], [pixels]), path, compress_to_fp16=False)
