"""A frozen base ready to run: maps at the split layer and pooled features, on the fastest engine.

On a GPU that is Keras; else OpenVINO, in bf16 where the CPU has it and the features are close
enough to those in f32. The converted network is stored beside the features.
"""

import contextlib
import dataclasses
import functools
import hashlib
import json
import logging
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np

from imagesieve.errors import EngineError, WeightsError
from imagesieve.files import locked, new_folder, sha256_of
from imagesieve.images import PIXEL_CONTRACT, decode
from imagesieve.learning.data.generator import ImageIterator
from imagesieve.learning.features.store import FeatureStore
from imagesieve.learning.networks.network import Network
from imagesieve.learning.openvino import convert, quantize
from imagesieve.model import engines

# Of bf16, as a share of what the features of different images differ by: centred features then
# still agree to a cosine of 0.99. Dropout and augmentation change them many times as much.
MAX_NOISE = 0.15
MAX_CONVERSION_NOISE = 0.005  # the same of OpenVINO in f32 against Keras

AUTO = "auto"

_NUM_COMPARED = 8  # images
_GPU_BATCH = 32

_IR, _INT8 = "converted", "int8"
_CHOSEN = "precision"

_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, eq=False)
class FrozenBase:
    """A base that is not trained, and what runs it. Any thread may call `run`.

    Attributes:
        engine: engine and precision.
        xml: the IR that runs, or None on a GPU.
        batch_size: images in a call; on a CPU one, so that what an image gets does not depend on
            its neighbours.
        tables: of `maps` at the split layer and of `pooled` features, what they are, as JSON
            values, and the shape of one image's. Features of equal values may be exchanged.
    """

    engine: str
    xml: Path | None
    batch_size: int
    tables: Mapping[str, tuple[dict[str, Any], tuple[int, ...]]]
    _open: Callable[[], "engines.OpenVINOEngine | _KerasRunner"]

    @functools.cached_property
    def _runner(self) -> "engines.OpenVINOEngine | _KerasRunner":
        # Compiling takes a while, which is in vain when all features are known.
        return self._open()

    @property
    def num_streams(self) -> int:
        """How many calls can run at once with profit."""
        return self._runner.num_streams

    def run(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return maps and pooled features of (batch, height, width, 3) uint8 images, float32."""
        maps, pooled = self._runner.run_all(images)
        return maps, pooled

    def require_xml(self) -> Path:
        """Return the IR that runs, or raise an EngineError on a GPU, where there is none."""
        if self.xml is None:
            raise EngineError("the base was not converted for OpenVINO")
        return self.xml


@contextlib.contextmanager
def open_base(
    network: Network, store: FeatureStore, images: ImageIterator, precision: str = AUTO
) -> Iterator[FrozenBase]:
    """Make the base of a network ready to run; the converted network goes into the store.

    Args:
        images: for training; a few of them are used to compare the precisions, and some to
            calibrate int8.
        precision: `auto` for what is quickest and close enough; or one of `engines.PRECISIONS`.

    Raises:
        EngineError: OpenVINO is not installed, or cannot run the network.
        WeightsError: the network gives numbers that are not finite.
        OutputError: the converted network cannot be stored.
    """
    lower, base = network.lower(), network.base
    both = keras.Model(base.input, [lower.output, base.output])
    height, width = base.input_shape[1:3]
    labels: dict[str, Any] = {"backbone": network.backbone.name, "image_size": [height, width]}
    digest = network_digest(base)
    with contextlib.ExitStack() as stack:
        run: Callable[[], engines.OpenVINOEngine | _KerasRunner]
        xml = None
        if precision == AUTO and has_gpu():
            engine, batch_size = "keras-f32", _GPU_BATCH
            run = functools.partial(_KerasRunner, both)
        else:
            about = {**labels, "holds": "converted network", "network": digest}
            place = stack.enter_context(store.place(about))
            xml, precision = _converted(both, place, images, precision)
            if precision == "int8":  # which depends on what it was calibrated on
                labels["quantised"] = sha256_of(xml.with_suffix(".bin"))
            engine, batch_size = f"openvino-{precision}", 1
            run = functools.partial(engines.OpenVINOEngine, xml, precision)
        labels |= {"engine": engine, "pixels": PIXEL_CONTRACT}
        digests = {"pooled": digest, "maps": network_digest(lower)}
        shapes = {"pooled": tuple(base.output_shape[1:]), "maps": tuple(lower.output_shape[1:])}
        tables = {
            name: ({**labels, "features": name, "network": digests[name]}, shape)
            for name, shape in shapes.items()
        }
        yield FrozenBase(engine, xml, batch_size, tables, run)


def network_digest(model: Any) -> str:
    """Return a SHA-256 over layers and weights: networks of one digest give the same features."""
    digest = hashlib.sha256()
    for layer in model.layers:
        config = {
            name: value
            for name, value in layer.get_config().items()
            if name not in ("trainable", "dtype")  # neither changes what a frozen network gives
        }
        text = json.dumps([type(layer).__name__, config], sort_keys=True, default=str)
        digest.update(text.encode())
        for weight in layer.get_weights():
            digest.update(np.ascontiguousarray(weight).tobytes())
    return digest.hexdigest()


def require_finite(features: np.ndarray) -> None:
    """Raise a WeightsError unless all features are finite numbers."""
    if not np.isfinite(features).all():
        raise WeightsError(
            "The network gives features that are not finite numbers: its weights are damaged or "
            "not for it; choose other weights with --weights."
        )


class _KerasRunner:
    """Runs a model of several outputs through one compiled function."""

    def __init__(self, model: Any) -> None:
        import tensorflow as tf

        self.num_streams = 1
        signature = [tf.TensorSpec((None, *model.input_shape[1:]), tf.uint8)]
        self._function = tf.function(
            lambda images: model(tf.cast(images, tf.float32), training=False),
            input_signature=signature,
            autograph=False,
            jit_compile=False,
        )

    def run_all(self, images: np.ndarray) -> tuple[np.ndarray, ...]:
        return tuple(np.asarray(output, np.float32) for output in self._function(images))


def has_gpu() -> bool:
    """Return whether TensorFlow can use a GPU."""
    import tensorflow as tf

    return bool(tf.config.list_physical_devices("GPU"))


def _converted(both: Any, place: Path, images: ImageIterator, precision: str) -> tuple[Path, str]:
    """Return the IR for a precision, and the precision; both are made if they are not there."""
    with locked(place / ".converting"):
        f32 = place / _IR / "base.xml"
        if not f32.exists():
            _log.info("Converting the network for OpenVINO.")
            with new_folder(place / _IR) as folder:
                convert.write_ir(both, folder / f32.name)
                (folder / _CHOSEN).write_text(_choose_precision(both, folder / f32.name, images))
        if precision == AUTO:
            precision = (place / _IR / _CHOSEN).read_text()
            if precision == "bf16" and not engines.cpu_has_bf16():  # chosen on another machine
                precision = "f32"
        if precision != "int8":
            return f32, precision
        int8 = place / _INT8 / "base.xml"
        if not int8.exists():
            _log.info("Quantising the network to int8.")
            with new_folder(place / _INT8) as folder:
                samples = quantize.calibration_samples(images.checked)
                size = both.input_shape[1:3]
                pixels = [decode(x.path, image_size=size).pixels for x in samples]
                quantize.quantise(f32, pixels, folder / int8.name)
        return int8, precision


def _choose_precision(both: Any, xml: Path, images: ImageIterator) -> str:
    numbers = np.unique(np.linspace(0, images.n - 1, _NUM_COMPARED).astype(int))
    pixels = np.stack([images.image(int(number), 0) for number in numbers])
    f32 = engines.OpenVINOEngine(xml, "f32").run_all(pixels)
    from_keras = [np.asarray(output) for output in both(pixels[:2].astype(np.float32))]
    for features in from_keras:
        require_finite(features)
    noise = max(_noise(one[:2], other, one) for one, other in zip(f32, from_keras, strict=True))
    if not noise <= MAX_CONVERSION_NOISE:
        raise EngineError(
            f"OpenVINO's features differ from Keras's by {100 * noise:.1f} % of what images "
            "differ by: this release of OpenVINO cannot run the network; choose another backbone."
        )
    if not engines.cpu_has_bf16():
        return "f32"
    bf16 = engines.OpenVINOEngine(xml, "bf16").run_all(pixels)
    noise = max(_noise(one, other, one) for one, other in zip(f32, bf16, strict=True))
    _log.debug("bf16 changes features by %.2f %% of what images differ by", 100 * noise)
    if noise <= MAX_NOISE:
        return "bf16"
    _log.info("Features are computed in f32: in bf16 they would change by %.0f %%.", 100 * noise)
    return "f32"


def _noise(one: np.ndarray, other: np.ndarray, all_images: np.ndarray) -> float:
    """Return the root mean square of a difference as a share of the images' deviation."""
    signal = float(np.sqrt(all_images.astype(np.float64).var(axis=0).mean()))
    error = float(np.sqrt(np.square(one.astype(np.float64) - other).mean()))
    return error / max(signal, 1e-30)
