"""A model file -> a thing that runs batches: OpenVINO or Keras, threads and precision.

An engine is safe to call from many threads. On a CPU several small requests at once are faster than
one large batch, so the OpenVINO engine keeps a pool of infer requests, one for each stream, and the
caller brings the threads (`Engine.num_streams`: how many are worth it).
"""

import abc
import contextlib
import logging
import queue
import sys
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from imagesieve.cores import cpu_count
from imagesieve.errors import EngineError, ModelDamagedError, UsageError
from imagesieve.logs import native_messages_in_log
from imagesieve.model.versions import KERAS_MODEL, OPENVINO_INT8_MODEL, OPENVINO_MODEL, ModelVersion

ENGINES = ("auto", "openvino", "keras")
PRECISIONS = ("auto", "f32", "bf16", "int8")

_QUICKEST_FIRST = ("int8", "bf16", "f32")  # on nearly every CPU; what was measured comes before it

_log = logging.getLogger(__name__)


class Engine(abc.ABC):
    """Runs a model on batches of images."""

    name: str  # engine and precision, for example `openvino-bf16`
    image_size: tuple[int, int]  # (height, width) in pixels
    # Of each output without the batch; None where a length may vary
    output_shapes: tuple[tuple[int | None, ...], ...]
    num_streams: int  # how many calls are worth running at once

    @abc.abstractmethod
    def run(self, images: np.ndarray) -> npt.NDArray[np.float32]:
        """Return the first output for images.

        Args:
            images: (batch, height, width, 3) uint8, RGB, 0 to 255.

        Returns:
            (batch, …) float32; of a classifier (batch, classes).

        Raises:
            EngineError: the run failed.
        """


class OpenVINOEngine(Engine):
    """Runs an OpenVINO IR on the CPU. Never imports TensorFlow."""

    def __init__(self, xml: Path, precision: str = "f32") -> None:
        """Compile the model.

        Args:
            xml: the IR, which takes (batch, height, width, 3); its `.bin` lies beside it.
            precision: `f32`, `bf16` where `cpu_has_bf16()`, or `int8` for an IR that was quantised.

        Raises:
            EngineError: the IR cannot be read or compiled, or takes no images.
        """
        self.name = f"openvino-{precision}"
        ov = import_openvino()
        try:
            core = _core()
            model = _take_uint8(ov, core.read_model(xml))
            self._compiled = core.compile_model(
                model,
                "CPU",
                {
                    "PERFORMANCE_HINT": "THROUGHPUT",
                    # What a quantised model leaves in floating point stays in single precision.
                    "INFERENCE_PRECISION_HINT": "bf16" if precision == "bf16" else "f32",
                    "INFERENCE_NUM_THREADS": cpu_count(),
                },
            )
            self.num_streams = self._compiled.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS")
            self._requests: queue.SimpleQueue[Any] = queue.SimpleQueue()
            for _ in range(self.num_streams):
                self._requests.put(self._compiled.create_infer_request())
            _, height, width, _ = self._compiled.input(0).get_partial_shape()
            self.image_size = (height.get_length(), width.get_length())
            self.output_shapes = tuple(map(_lengths, self._compiled.outputs))
        except (RuntimeError, ValueError) as error:  # ValueError: other axes than an image's
            raise EngineError(f"OpenVINO cannot load {xml}: {_first_line(error)}") from error

    def run(self, images: np.ndarray) -> npt.NDArray[np.float32]:
        """See `Engine.run`; waits for a free infer request."""
        return self.run_all(images)[0]

    def run_all(self, images: np.ndarray) -> tuple[npt.NDArray[np.float32], ...]:
        """Return every output for images, as `run` does the first, in the order of the model."""
        with self._request() as request:
            try:
                request.infer([np.ascontiguousarray(images)])
            except RuntimeError as error:
                raise EngineError(f"{self.name} failed: {_first_line(error)}") from error
            # Copies: the next run of this request writes to the same memory.
            return tuple(
                np.array(request.get_output_tensor(number).data, dtype=np.float32)
                for number in range(len(self.output_shapes))
            )

    @contextlib.contextmanager
    def _request(self) -> Iterator[Any]:
        request = self._requests.get()
        try:
            yield request
        finally:
            self._requests.put(request)


class KerasEngine(Engine):
    """Runs a Keras model through one compiled function."""

    def __init__(self, model: Any) -> None:
        """Wrap a Keras model of one output that takes float32 pixels from 0 to 255.

        `model.predict` costs several times as much for one image, and calling the model directly
        even more: a single traced function serves every batch size.
        """
        import tensorflow as tf

        if len(model.input_shape) != 4:
            raise EngineError(f"The Keras model takes {model.input_shape}, not a batch of images.")
        _, height, width, _ = model.input_shape
        self.name = "keras-f32"
        self.image_size = (height, width)
        self.output_shapes = (tuple(model.output_shape[1:]),)
        self.num_streams = 1
        self._lock = threading.Lock()

        def call(images: Any) -> Any:
            return model(tf.cast(images, tf.float32), training=False)

        # Compiling just in time ruins depthwise convolutions on CPUs; AutoGraph has nothing to do.
        signature = [tf.TensorSpec((None, height, width, 3), tf.uint8)]
        self._function = tf.function(
            call, input_signature=signature, autograph=False, jit_compile=False
        )
        self._convert = tf.convert_to_tensor

    def run(self, images: np.ndarray) -> npt.NDArray[np.float32]:
        """See `Engine.run`; one call at a time, as TensorFlow spreads each over all cores."""
        with self._lock:
            try:
                return np.asarray(self._function(self._convert(images)), dtype=np.float32)
            except Exception as error:
                raise EngineError(f"{self.name} failed: {_first_line(error)}") from error


def load_keras_model(path: Path) -> Any:
    """Return the Keras model in a `.keras` file; no code that the file may carry is run.

    Raises:
        EngineError: Keras is not installed, or cannot read the file.
    """
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
        raise EngineError(f"Keras cannot load {path}: {_first_line(error)}") from error


def open_engine(version: ModelVersion, engine: str = "auto", precision: str = "auto") -> Engine:
    """Return an engine for a checked model version.

    Args:
        version: from `versions.load`, so its files have their checksums.
        engine: `auto` takes OpenVINO where the version has it, Keras otherwise.
        precision: `auto` takes the quickest that `choose_precision` finds.

    Raises:
        UsageError: the two do not go together.
        EngineError: the engine is not installed, or cannot load or run the model.
        ModelDamagedError: the model's shapes are not those of its manifest.
    """
    if engine not in ENGINES or precision not in PRECISIONS:
        raise UsageError(
            f"Unknown engine {engine!r} or precision {precision!r}: "
            f"use {', '.join(ENGINES)} and {', '.join(PRECISIONS)}."
        )
    if engine == "auto":
        engine = "openvino" if version.file(OPENVINO_MODEL) else "keras"
    opened = _open_keras(version, precision) if engine == "keras" else _open_ir(version, precision)
    _check_shapes(opened, version)
    return opened


def choose_precision(version: ModelVersion) -> str:
    """Return the quickest precision that this version passed its check for and this CPU has.

    The times that were measured when the version was made decide. A version without them (of an
    earlier release) is served in int8 before bf16 before f32.
    """
    usable = [precision for precision in _QUICKEST_FIRST if _may_serve(version, precision)]
    times = [_check_result(version, precision).get("milliseconds") for precision in usable]
    known = [time for time in times if isinstance(time, int | float)]
    if len(known) < len(usable):
        return usable[0]
    return usable[known.index(min(known))]


def cpu_has_bf16() -> bool:
    """Return whether this CPU has bfloat16 arithmetic, which roughly halves the time."""
    import_openvino()
    return "BF16" in _core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


def import_openvino() -> Any:
    """Import OpenVINO with its telemetry switched off.

    OpenVINO reports its import to its makers when the package `openvino_telemetry` can be imported;
    with that name blocked it uses a stub of its own that sends nothing.

    Raises:
        EngineError: OpenVINO is not installed.
    """
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # blocks the name
    try:
        import openvino
    except ImportError as error:
        raise EngineError(
            "OpenVINO is not installed: run `pip install openvino`, or use --engine keras."
        ) from error
    return openvino


_core_lock = threading.Lock()
_the_core: Any = None


def _core() -> Any:
    global _the_core
    with _core_lock:
        if _the_core is None:
            ov = import_openvino()
            # The table of types behind `.data` is built on first use, and two threads that do so at
            # once wait for each other for ever, holding Python's global lock.
            np.copy(ov.Tensor(np.zeros(1, np.uint8)).data)
            _the_core = ov.Core()
            # A mapped file stays in memory beside the weights that are made of it, 80 MiB of
            # InceptionV3's, and kills the process when the file is truncated.
            _the_core.set_property({"ENABLE_MMAP": False})
        return _the_core


def _take_uint8(ov: Any, model: Any) -> Any:
    # The cast to float happens inside the compiled model: a quarter of the bytes to hand over.
    steps = ov.preprocess.PrePostProcessor(model)
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
    elif precision == "bf16" and not cpu_has_bf16():
        raise UsageError("This CPU has no bfloat16 arithmetic: use --precision f32 or auto.")
    if precision == "int8":
        path = version.file(OPENVINO_INT8_MODEL)
        if path is None:
            reason = _check_result(version, "int8").get("reason", "it was made without one")
            raise UsageError(
                f"The model version {version.path} has no int8 model ({reason}): "
                "use --precision f32 or auto."
            )
    return OpenVINOEngine(path, precision)


def _may_serve(version: ModelVersion, precision: str) -> bool:
    if precision == "f32":
        return True
    if _check_result(version, precision).get("passed") is not True:
        return False
    return cpu_has_bf16() if precision == "bf16" else version.file(OPENVINO_INT8_MODEL) is not None


def _check_result(version: ModelVersion, precision: str) -> Mapping[str, Any]:
    found = version.manifest.engines.get(f"openvino-{precision}")
    return found if isinstance(found, Mapping) else {}


def _check_shapes(engine: Engine, version: ModelVersion) -> None:
    size, num_classes = version.manifest.image_size, len(version.manifest.classes)
    if engine.image_size != size or engine.output_shapes[0] != (num_classes,):
        raise ModelDamagedError(
            f"The model in {version.path} takes {engine.image_size} pixels and its output is "
            f"{engine.output_shapes[0]}; its manifest says {size} and {num_classes} classes."
        )


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[-1] if lines else type(error).__name__)[:300]
