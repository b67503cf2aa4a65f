"""A trained network -> the formats of other people's runtimes, each opened again and compared.

All take (batch, height, width, 3) float32 pixels from 0 to 255, RGB, and give probabilities: the
scaling is inside.
"""

import dataclasses
import importlib.util
import os
import shutil
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from imagesieve.errors import EngineError, UsageError
from imagesieve.logs import native_messages_in_log
from imagesieve.model import engines

MAX_DIFFERENCE = 1e-3  # of a probability, between Keras and an export


@dataclasses.dataclass(frozen=True)
class Format:
    """One way to export."""

    path: str  # of the file or folder, inside the folder of the exports
    keras_name: str  # what `keras.Model.export` calls it
    packages: tuple[str, ...]  # that it needs besides TensorFlow
    read: Callable[[Path, np.ndarray], np.ndarray]  # its answers to uint8 images


def check(formats: Sequence[str]) -> None:
    """Raise a UsageError, which says what to install, when a format cannot be written here."""
    for name in formats:
        packages = FORMATS[name].packages
        missing = [package for package in packages if not importlib.util.find_spec(package)]
        if missing:
            raise UsageError(
                f"The export to {name} needs {' and '.join(missing)}: run "
                f"`pip install {' '.join(packages)}`."
            )


def export(model: Any, folder: Path, name: str, images: np.ndarray) -> dict[str, Any]:
    """Write a Keras model in another format; return how its answers compare, as JSON values.

    Args:
        model: a Keras classifier that takes pixels from 0 to 255.
        folder: gets `model.onnx`, `saved_model/` or `model.tflite`; made if need be.
        name: of the format, one of `FORMATS`.
        images: (batch, height, width, 3) uint8, to compare on.

    Raises:
        EngineError: the format, which it names, could not be written or gives other answers than
            Keras; nothing of it is left behind.
    """
    path = folder / FORMATS[name].path
    folder.mkdir(parents=True, exist_ok=True)
    expected = engines.KerasEngine(model).run(images)
    try:
        found = _write_and_read(model, path, name, images)
        same_shape = found.shape == expected.shape
        difference = float(np.abs(found - expected).max()) if same_shape else float("inf")
        _require_close(name, difference)
    except BaseException:
        _remove(path)
        raise
    return {"passed": True, "max_difference_to_keras": difference, "bytes": _num_bytes(path)}


def _write_and_read(model: Any, path: Path, name: str, images: np.ndarray) -> np.ndarray:
    try:
        # What the converters say is about their own use of NumPy and TensorFlow.
        with native_messages_in_log(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model.export(path, format=FORMATS[name].keras_name, verbose=False)
            return FORMATS[name].read(path, images)
    except OSError:
        raise  # a full disk is not the format's fault
    except Exception as error:  # converters and runtimes raise whatever their parts raise
        raise EngineError(f"The export to {name} failed: {error}") from error


def _require_close(name: str, difference: float) -> None:
    if not difference <= MAX_DIFFERENCE:  # True for NaN
        raise EngineError(
            f"The export to {name} gives probabilities that differ from Keras's by up to "
            f"{difference:.4f}, more than {MAX_DIFFERENCE}."
        )


def _read_onnx(path: Path, images: np.ndarray) -> np.ndarray:
    return engines.OpenVINOEngine(path).run(images)


def _read_saved_model(path: Path, images: np.ndarray) -> np.ndarray:
    import tensorflow as tf

    loaded = tf.saved_model.load(os.fspath(path))  # its variables live as long as it does
    answers: np.ndarray = loaded.serve(images.astype(np.float32)).numpy()
    return answers


def _read_litert(path: Path, images: np.ndarray) -> np.ndarray:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TensorFlow's own interpreter announces its end
        interpreter = _interpreter()(os.fspath(path))
    (taken,), (given,) = interpreter.get_input_details(), interpreter.get_output_details()
    interpreter.resize_tensor_input(taken["index"], images.shape)
    interpreter.allocate_tensors()
    interpreter.set_tensor(taken["index"], images.astype(np.float32))
    interpreter.invoke()
    answers: np.ndarray = interpreter.get_tensor(given["index"])
    return answers


def _interpreter() -> Any:
    try:
        from ai_edge_litert.interpreter import Interpreter
    except ImportError:
        import tensorflow as tf

        return tf.lite.Interpreter
    return Interpreter


FORMATS: Mapping[str, Format] = {
    "onnx": Format("model.onnx", "onnx", ("tf2onnx", "onnx"), _read_onnx),
    "saved_model": Format("saved_model", "tf_saved_model", (), _read_saved_model),
    "litert": Format("model.tflite", "litert", (), _read_litert),
}


def _num_bytes(path: Path) -> int:
    files = [path, *path.rglob("*")]
    return sum(file.stat().st_size for file in files if file.is_file())


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
