"""A trained network -> the formats of other people's runtimes, each opened again and compared.

All take (batch, height, width, 3) float32 pixels from 0 to 255, RGB, and give probabilities: the
scaling is inside.
"""

import importlib.util
import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from imagesieve.errors import EngineError, UsageError
from imagesieve.files import scratch_folder
from imagesieve.logs import native_messages_in_log
from imagesieve.model import engines, golden


def _read_saved_model(path: Path, images: np.ndarray) -> np.ndarray:
    import tensorflow as tf

    loaded = tf.saved_model.load(os.fspath(path))  # its variables live as long as it does
    return np.asarray(loaded.serve(images.astype(np.float32)))


def _read_litert(path: Path, images: np.ndarray) -> np.ndarray:
    import tensorflow as tf

    interpreter = tf.lite.Interpreter(os.fspath(path))
    (taken,), (given,) = interpreter.get_input_details(), interpreter.get_output_details()
    interpreter.resize_tensor_input(taken["index"], images.shape)
    interpreter.allocate_tensors()
    interpreter.set_tensor(taken["index"], images.astype(np.float32))
    interpreter.invoke()
    return np.asarray(interpreter.get_tensor(given["index"]))


class Format(NamedTuple):
    """One way to export."""

    path: str  # of the file or folder, inside the folder of the exports
    keras_name: str  # what `keras.Model.export` calls it
    read: Callable[[Path, np.ndarray], np.ndarray]  # its answers to uint8 images


FORMATS: Mapping[str, Format] = {
    "onnx": Format("model.onnx", "onnx", lambda path, x: engines.OpenVINOEngine(path).run(x)),
    "saved_model": Format("saved_model", "tf_saved_model", _read_saved_model),
    "litert": Format("model.tflite", "litert", _read_litert),
}


def check(formats: Sequence[str]) -> None:
    """Raise a UsageError, which says what to install, when a format cannot be written here."""
    if "onnx" in formats and not all(map(importlib.util.find_spec, ("tf2onnx", "onnx"))):
        raise UsageError("The export to onnx needs more: run `pip install tf2onnx onnx`.")


def export(model: Any, folder: Path, name: str, images: np.ndarray) -> dict[str, Any]:
    """Write a Keras classifier into `folder`; return how its answers compare, as JSON values.

    Images to compare on are (batch, height, width, 3) uint8. An EngineError is raised if the format
    could not be written or gives other answers than Keras; nothing of it is left behind.
    """
    path = folder / FORMATS[name].path
    with scratch_folder(folder, name) as scratch:
        difference = _write_and_compare(model, scratch / path.name, name, images)
        if not difference <= golden.MAX_DIFFERENCE:  # True for NaN
            raise EngineError(
                f"The export to {name} gives probabilities that differ from Keras's by up to "
                f"{difference:.4f}, more than {golden.MAX_DIFFERENCE}."
            )
        (scratch / path.name).rename(path)
    num_bytes = sum(file.stat().st_size for file in [path, *path.rglob("*")] if file.is_file())
    return {"passed": True, "max_difference_to_keras": difference, "bytes": num_bytes}


def _write_and_compare(model: Any, path: Path, name: str, images: np.ndarray) -> float:
    expected = engines.KerasEngine(model).run(images)
    try:
        # What the converters say is about their own use of NumPy and TensorFlow.
        with native_messages_in_log(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model.export(path, format=FORMATS[name].keras_name, verbose=False)
            found = FORMATS[name].read(path, images)
        return float(np.abs(found - expected).max())
    except OSError:
        raise  # a full disk is not the format's fault
    except Exception as error:  # converters and runtimes raise whatever their parts raise
        raise EngineError(f"The export to {name} failed: {error}") from error
