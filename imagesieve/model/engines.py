"""A model file -> a thing that runs batches: OpenVINO or Keras, threads and precision.

An engine is safe to call from many threads. On a CPU several small requests at once are faster than
one large batch, so the OpenVINO engine keeps a pool of infer requests, one for each stream, and the
caller brings the threads (`Engine.num_streams`: how many are worth it).
"""

import abc
import functools
import queue
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from imagesieve.errors import EngineError, ModelDamagedError, UsageError
from imagesieve.logs import native_messages_in_log
from imagesieve.model.versions import KERAS_MODEL, OPENVINO_INT8_MODEL, OPENVINO_MODEL, ModelVersion
from imagesieve.threads import cpu_count

_QUICKEST_FIRST = ("int8", "bf16")  # before f32 on nearly every CPU, where nothing was measured


class Engine(abc.ABC):
    """Runs a model on batches of images."""

    name: str  # engine and precision, for example `openvino-bf16`
    image_size: tuple[int, int]  # (height, width) in pixels
    # Of each output without the batch; None where a length may vary
    output_shapes: tuple[tuple[int | None, ...], ...]
    num_streams: int  # how many calls are worth running at once

    @abc.abstractmethod
    def run(self, images: np.ndarray) -> npt.NDArray[np.float32]:
        """Return the first output for images, or raise an EngineError.

        Images are (batch, height, width, 3) uint8, RGB, 0 to 255; a classifier's output is
        (batch, classes).
        """


class OpenVINOEngine(Engine):
    """Runs an OpenVINO IR on the CPU. Never imports TensorFlow."""

    def __init__(self, xml: Path, precision: str = "f32") -> None:
        """Compile an IR of (batch, height, width, 3), or raise an EngineError.

        `precision` is `f32`, `bf16` where `cpu_has_bf16()`, or `int8` for an IR that was quantised.
        """
        self.name = f"openvino-{precision}"
        settings = {
            "PERFORMANCE_HINT": "THROUGHPUT",
            # What a quantised model leaves in floating point stays in single precision.
            "INFERENCE_PRECISION_HINT": "bf16" if precision == "bf16" else "f32",
            "INFERENCE_NUM_THREADS": cpu_count(),
        }
        try:
            compiled = _core().compile_model(_read_for_uint8(xml), "CPU", settings)
            self.num_streams = compiled.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS")
            self._requests: queue.SimpleQueue[Any] = queue.SimpleQueue()
            for _ in range(self.num_streams):
                self._requests.put(compiled.create_infer_request())
            _, height, width, _ = compiled.input(0).get_partial_shape()
            self.image_size = (height.get_length(), width.get_length())
            self.output_shapes = tuple(map(_lengths, compiled.outputs))
        except (RuntimeError, ValueError) as error:  # ValueError: other axes than an image's
            raise EngineError(f"OpenVINO cannot load {xml}: {_last_line(error)}") from error

    def run(self, images: np.ndarray) -> npt.NDArray[np.float32]:
        return self.run_all(images)[0]

    def run_all(self, images: np.ndarray) -> tuple[npt.NDArray[np.float32], ...]:
        """Return every output for images, as `run` does the first, in the order of the model."""
        request = self._requests.get()
        try:
            request.infer([np.ascontiguousarray(images)])
            # Copies: the next run of this request writes to the same memory.
            return tuple(
                np.array(request.get_output_tensor(number).data, dtype=np.float32)
                for number in range(len(self.output_shapes))
            )
        except RuntimeError as error:
            raise EngineError(f"{self.name} failed: {_last_line(error)}") from error
        finally:
            self._requests.put(request)


class KerasEngine(Engine):
    """Runs a Keras model through one compiled function."""

    def __init__(self, model: Any) -> None:
        """Wrap a Keras model of one output that takes float32 pixels from 0 to 255."""
        import tensorflow as tf

        if len(model.input_shape) != 4:
            raise EngineError(f"The Keras model takes {model.input_shape}, not a batch of images.")
        self.name = "keras-f32"
        self.image_size = model.input_shape[1:3]
        self.output_shapes = (tuple(model.output_shape[1:]),)
        self.num_streams = 1
        self._lock = threading.Lock()

        def call(images: Any) -> Any:
            return model(tf.cast(images, tf.float32), training=False)

        # `model.predict` costs several times as much for one image, and calling the model directly
        # even more: a single traced function serves every batch size.
        # Compiling just in time ruins depthwise convolutions on CPUs; AutoGraph has nothing to do.
        signature = [tf.TensorSpec((None, *self.image_size, 3), tf.uint8)]
        self._function = tf.function(
            call, input_signature=signature, autograph=False, jit_compile=False
        )

    def run(self, images: np.ndarray) -> npt.NDArray[np.float32]:
        """Run one call at a time, as TensorFlow spreads each over all cores."""
        with self._lock:
            try:
                return np.asarray(self._function(images), dtype=np.float32)
            except Exception as error:
                raise EngineError(f"{self.name} failed: {_last_line(error)}") from error


def load_keras_model(path: Path) -> Any:
    """Return the Keras model in a file, none of whose code is run, or raise an EngineError."""
    try:
        import keras
    except ImportError as error:
        raise EngineError(
            "Keras is not installed: run `pip install -r requirements.txt`, or use "
            "--engine openvino."
        ) from error
    try:
        return keras.saving.load_model(path, compile=False, safe_mode=True)
    except Exception as error:  # Keras raises whatever its layers and HDF5 raise
        raise EngineError(f"Keras cannot load {path}: {_last_line(error)}") from error


def open_engine(version: ModelVersion, engine: str = "auto", precision: str = "auto") -> Engine:
    """Return an engine for a version from `versions.load`, whose files have their checksums.

    The engine `auto` is OpenVINO where the version has it, the precision `auto` what
    `choose_precision` finds.

    Raises:
        UsageError: the two do not go together.
        EngineError: the engine is not installed, or cannot load or run the model.
        ModelDamagedError: the model's shapes are not those of its manifest.
    """
    if engine == "auto":
        engine = "openvino" if version.file(OPENVINO_MODEL) else "keras"
    opened = _open_keras(version, precision) if engine == "keras" else _open_ir(version, precision)
    size, num_classes = version.manifest.image_size, len(version.manifest.classes)
    if opened.image_size != size or opened.output_shapes[0] != (num_classes,):
        raise ModelDamagedError(
            f"The model in {version.path} takes {opened.image_size} pixels and its output is "
            f"{opened.output_shapes[0]}; its manifest says {size} and {num_classes} classes."
        )
    return opened


def choose_precision(version: ModelVersion) -> str:
    """Return the quickest precision that this version passed its check for and this CPU has.

    The times that were measured when the version was made decide. A version without them (of an
    earlier release) is served in int8 before bf16 before f32.
    """
    passed = [x for x in _QUICKEST_FIRST if _check_result(version, x).get("passed") is True]
    usable = [x for x in [*passed, "f32"] if not _why_not(version, x)]
    times = [_check_result(version, precision).get("milliseconds") for precision in usable]
    known = [time for time in times if isinstance(time, int | float)]
    return usable[times.index(min(known))] if known == times else usable[0]


def cpu_has_bf16() -> bool:
    """Return whether this CPU has bfloat16 arithmetic, which roughly halves the time."""
    return "BF16" in _core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


def import_openvino() -> Any:
    """Import OpenVINO with its telemetry switched off, or raise an EngineError."""
    # OpenVINO reports its import to its makers when the package `openvino_telemetry` can be
    # imported; with that name blocked it uses a stub of its own that sends nothing.
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # None blocks it
    try:
        import openvino
    except ImportError as error:
        raise EngineError(
            "OpenVINO is not installed: run `pip install openvino`, or use --engine keras."
        ) from error
    return openvino


_core_lock = threading.Lock()


def _core() -> Any:
    with _core_lock:  # else two threads might make one each
        return _the_core()


@functools.cache
def _the_core() -> Any:
    ov = import_openvino()
    # The table of types behind `.data` is built on first use, and two threads that do so at once
    # wait for each other for ever, holding Python's global lock.
    np.copy(ov.Tensor(np.zeros(1, np.uint8)).data)
    core = ov.Core()
    # A mapped file stays in memory beside the weights that are made of it, 80 MiB of InceptionV3's,
    # and kills the process when the file is truncated.
    core.set_property({"ENABLE_MMAP": False})
    return core


def _read_for_uint8(xml: Path) -> Any:
    # The cast to float happens inside the compiled model: a quarter of the bytes to hand over.
    ov = import_openvino()
    steps = ov.preprocess.PrePostProcessor(_core().read_model(xml))
    steps.input(0).tensor().set_element_type(ov.Type.u8)
    return steps.build()


def _lengths(output: Any) -> tuple[int | None, ...]:
    axes = list(output.get_partial_shape())[1:]
    return tuple(None if axis.is_dynamic else axis.get_length() for axis in axes)


def _open_keras(version: ModelVersion, precision: str) -> Engine:
    if precision not in ("auto", "f32"):
        raise UsageError(f"The Keras engine runs in f32 only, not {precision}.")
    path = version.file(KERAS_MODEL)
    if path is None:
        raise EngineError(f"The model version {version.path} has no {KERAS_MODEL}.")
    with native_messages_in_log():
        return KerasEngine(load_keras_model(path))


def _open_ir(version: ModelVersion, precision: str) -> Engine:
    path = version.file(OPENVINO_MODEL)
    if path is None:
        raise EngineError(
            f"The model version {version.path} has no {OPENVINO_MODEL}: use --engine keras."
        )
    if precision == "auto":
        precision = choose_precision(version)
    elif reason := _why_not(version, precision):
        raise UsageError(f"{reason}: use --precision f32 or auto.")
    if precision == "int8":
        path = version.path / OPENVINO_INT8_MODEL
    return OpenVINOEngine(path, precision)


def _why_not(version: ModelVersion, precision: str) -> str | None:
    """Return why a version cannot run in a precision here, or None."""
    if precision == "bf16" and not cpu_has_bf16():
        return "This CPU has no bfloat16 arithmetic"
    if precision == "int8" and version.file(OPENVINO_INT8_MODEL) is None:
        reason = _check_result(version, "int8").get("reason", "it was made without one")
        return f"The model version {version.path} has no int8 model ({reason})"
    return None


def _check_result(version: ModelVersion, precision: str) -> Mapping[str, Any]:
    return version.manifest.engines.get(f"openvino-{precision}", {})


def _last_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[-1] if lines else type(error).__name__)[:300]
