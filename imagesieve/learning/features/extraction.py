"""Images -> features of a frozen base, on the fastest engine, each computed once.

A frozen network gives the same answer for the same pixels in every epoch, so it is run once before
the training instead of in every step of it; the features are stored for the next training. On a
GPU Keras runs it; else OpenVINO, in bf16 where the CPU has it and the features are close enough to
those in f32.
"""

import contextlib
import dataclasses
import functools
import itertools
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import numpy.typing as npt

from imagesieve import console
from imagesieve.errors import EngineError, ImageError, WeightsError
from imagesieve.files import locked, new_folder, sha256_of
from imagesieve.images import PIXEL_CONTRACT
from imagesieve.learning.data.dataset import changed_since, decode_samples
from imagesieve.learning.data.generator import ImageIterator
from imagesieve.learning.features.store import (
    Features,
    FeatureStore,
    FeatureTable,
    StoredRows,
    row_key,
)
from imagesieve.learning.networks.network import Network, network_digest
from imagesieve.learning.openvino import convert, quantize
from imagesieve.model import engines
from imagesieve.threads import cpu_count, map_ahead

# Of bf16, as a share of what the features of different images differ by: centred features then
# still agree to a cosine of 0.99. Dropout and augmentation change them many times as much.
MAX_NOISE = 0.15
MAX_CONVERSION_NOISE = 0.005  # the same of OpenVINO in f32 against Keras

AUTO = "auto"

_NUM_COMPARED = 8  # images
_MAP_BATCH = 64
_GPU_BATCH = 32

_log = logging.getLogger(__name__)

Task = tuple[int, dict[int, bytes]]  # the number of an image, and the keys of views to compute


@dataclasses.dataclass(eq=False)
class Extractor:
    """The frozen base of a network, and the tables of what it made of images; see `opened`."""

    network: Network
    store: FeatureStore
    precision: str  # of OpenVINO
    xml: Path | None  # the IR that runs, or None on a GPU, where Keras does
    # Of `maps` at the split layer and of `pooled` features, what they are, as JSON values. Features
    # of equal values may be exchanged.
    tables: Mapping[str, dict[str, Any]]
    stack: contextlib.ExitStack  # closes the tables
    quiet: bool  # show no progress
    num_computed: int = 0  # images, each view counted, that went through the base

    def pooled(self, images: ImageIterator, num_views: int, *, from_maps: bool = False) -> Features:
        """Return pooled features in memory, (views, images, num_features) float16.

        `from_maps` pools stored maps instead of running the whole base; the result differs a little
        from the engine's, so it is for training, not for comparing precisions.
        """
        keys = _keys(images, num_views)
        table = self._open("pooled")
        if from_maps and self.store.has(self.tables["maps"]):
            self._pool(self._open("maps"), table, keys)
        self._complete(images, keys, [table])
        return _in_memory(images, keys, table)

    def maps(self, images: ImageIterator, num_views: int) -> tuple[Features, Features]:
        """Return maps at the split layer, which stay on disk, and pooled features; see `pooled`."""
        keys = _keys(images, num_views)
        # Pooled features first: a row that a killed process wrote without its map is made again,
        # and both come out of the same pass.
        pooled, maps = self._open("pooled"), self._open("maps")
        self._complete(images, keys, [pooled, maps])
        found = Features(StoredRows(maps, keys), images.classes, images.weights)
        return found, _in_memory(images, keys, pooled)

    def require_xml(self) -> Path:
        """Return the IR that runs, or raise an EngineError on a GPU, where there is none."""
        if self.xml is None:
            raise EngineError("the base was not converted for OpenVINO")
        return self.xml

    def _open(self, name: str) -> FeatureTable:
        return self.stack.enter_context(self.store.table(self.tables[name]))

    def _pool(
        self, maps: FeatureTable, pooled: FeatureTable, keys: Sequence[Sequence[bytes]]
    ) -> None:
        """Fill a table from stored maps: after fine-tuning only the top is new."""
        stored = [key for key in itertools.chain(*keys) if key in maps and key not in pooled]
        if not stored:
            return
        self.store.make_room(len(stored) * pooled.row_bytes, f"{len(stored)} images")
        upper = self.network.upper_base()
        for start in range(0, len(stored), _MAP_BATCH):
            batch = stored[start : start + _MAP_BATCH]
            rows = np.asarray(upper.predict_on_batch(maps.read(batch).astype(np.float32)))
            pooled.add(batch, _half(rows))

    @functools.cached_property
    def _runner(self) -> tuple[Callable[[np.ndarray], Sequence[np.ndarray]], int]:
        """Pixels -> maps and pooled features, from any thread; how many calls are worth it at once.

        Compiling takes a while, which is in vain when all features are known.
        """
        if self.xml:
            engine = engines.OpenVINOEngine(self.xml, self.precision)
            return engine.run_all, engine.num_streams
        both = _both(self.network)
        both.jit_compile = False
        return lambda images: both.predict_on_batch(images.astype(np.float32)), 1

    def _complete(
        self, images: ImageIterator, keys: Sequence[Sequence[bytes]], tables: list[FeatureTable]
    ) -> None:
        """Compute what the tables lack."""
        tasks = _missing(keys, tables)
        total, num_missing = len(keys) * images.n, sum(len(views) for _, views in tasks)
        what = f"{images.n} images" + (f" in {len(keys)} views" if len(keys) > 1 else "")
        if tasks:
            for table in tables:
                self.store.make_room(num_missing * table.row_bytes, what)
        with console.progress(f"features of {what}", total, quiet=self.quiet) as advance:
            advance(total - num_missing)
            for count in self._computed(images, tasks, tables) if tasks else ():
                advance(count)
        self.num_computed += num_missing

    def _computed(
        self, images: ImageIterator, tasks: list[Task], tables: list[FeatureTable]
    ) -> Iterator[int]:
        """Add rows to the tables; yield the number of views that were computed, again and again."""
        run, num_streams = self._runner
        # On a CPU one image at a time, so that what it gets does not depend on its neighbours.
        size = 1 if self.xml else _GPU_BATCH

        def compute(batch: list[Task]) -> int:
            pixels = [image for number, views in batch for image in images.views(number, [*views])]
            keys = [key for _, views in batch for key in views.values()]
            for start in range(0, len(pixels), size):
                maps, pooled = run(np.stack(pixels[start : start + size]))
                for table, rows in zip(tables, (pooled, maps), strict=False):
                    table.add(keys[start : start + size], _half(rows))
            return len(pixels)

        # More threads than the base runs at once: the others decode meanwhile.
        threads = num_streams + cpu_count() // 2
        batches = (tasks[start : start + size] for start in range(0, len(tasks), size))
        try:
            yield from map_ahead(compute, batches, threads=threads, ahead=threads)
        except ImageError as error:
            raise changed_since(error) from error


@contextlib.contextmanager
def opened(
    network: Network,
    store: FeatureStore,
    images: ImageIterator,
    precision: str = AUTO,
    *,
    quiet: bool = True,
) -> Iterator[Extractor]:
    """Make the frozen base of a network ready to run; features are valid inside the block only.

    On a CPU the base is converted for OpenVINO, and that is stored too. A few of the training
    images compare the precisions, and some calibrate int8. The precision `auto` is what is quickest
    and close enough. An EngineError is raised if OpenVINO cannot run the network, a WeightsError if
    the network gives numbers that are not finite.
    """
    lower, base = network.lower(), network.base
    labels: dict[str, Any] = {
        "backbone": network.backbone.name,
        "image_size": list(network.image_size),
    }
    digest = network_digest(base)
    xml = None
    with contextlib.ExitStack() as stack:
        if precision == AUTO and _has_gpu():
            engine = "keras-f32"
        else:
            about = {**labels, "holds": "converted network", "network": digest}
            place = stack.enter_context(store.place(about))
            xml, precision = _converted(_both(network), place, images, precision)
            if precision == "int8":  # which depends on what it was calibrated on
                labels["quantised"] = sha256_of(xml.with_suffix(".bin"))
            engine = f"openvino-{precision}"
        labels |= {"engine": engine, "pixels": PIXEL_CONTRACT}

        def table(name: str, part: Any, digest: str) -> dict[str, Any]:
            shape = list(part.output_shape[1:])
            return {**labels, "features": name, "network": digest, "row_shape": shape}

        tables = {
            "pooled": table("pooled", base, digest),
            "maps": table("maps", lower, network_digest(lower)),
        }
        yield Extractor(network, store, precision, xml, tables, stack, quiet)


def _both(network: Network) -> Any:
    """Return the network from pixels to maps and pooled features."""
    return keras.Model(network.base.input, [network.lower().output, network.base.output])


def _in_memory(
    images: ImageIterator, keys: Sequence[Sequence[bytes]], table: FeatureTable
) -> Features:
    return Features(np.stack([table.read(row) for row in keys]), images.classes, images.weights)


def _keys(images: ImageIterator, num_views: int) -> list[list[bytes]]:
    names = [images.view_name(view) for view in range(num_views)]
    return [[row_key(sha256, name) for sha256 in images.sha256s] for name in names]


def _missing(keys: Sequence[Sequence[bytes]], tables: Sequence[FeatureTable]) -> list[Task]:
    seen: set[bytes] = set()  # copies of an image are computed once
    tasks: dict[int, dict[int, bytes]] = {}
    for number in range(len(keys[0])):
        for view, row in enumerate(keys):
            key = row[number]
            if key not in seen and not all(key in table for table in tables):
                seen.add(key)
                tasks.setdefault(number, {})[view] = key
    return list(tasks.items())


def _half(rows: np.ndarray) -> npt.NDArray[np.float16]:
    with np.errstate(over="ignore"):  # half precision ends at 65504; what lies beyond is found here
        half = rows.astype(np.float16)
    _require_finite(half)
    return half


def _require_finite(features: np.ndarray) -> None:
    if not np.isfinite(features).all():
        raise WeightsError(
            "The network gives features that are not finite numbers: its weights are damaged or "
            "not for it; choose other weights with --weights."
        )


def _has_gpu() -> bool:
    import tensorflow as tf

    return bool(tf.config.list_physical_devices("GPU"))


def _converted(both: Any, place: Path, images: ImageIterator, precision: str) -> tuple[Path, str]:
    """Return the IR for a precision, and the precision; both are made if they are not in `place`.

    `both` is a Keras model from pixels to maps and pooled features; see `extraction.opened`.
    """
    with locked(place / ".converting"):
        f32 = place / "converted" / "base.xml"
        if not f32.exists():
            _log.info("Converting the network for OpenVINO.")
            with new_folder(f32.parent) as folder:
                convert.write_ir(both, folder / f32.name)
                chosen = _choose_precision(both, folder / f32.name, images)
                (folder / "precision").write_text(chosen)
        if precision == AUTO:
            precision = (f32.parent / "precision").read_text()
            if precision == "bf16" and not engines.cpu_has_bf16():  # chosen on another machine
                precision = "f32"
        if precision != "int8":
            return f32, precision
        int8 = place / "int8" / "base.xml"
        if not int8.exists():
            _log.info("Quantising the network to int8.")
            with new_folder(int8.parent) as folder:
                samples = quantize.calibration_samples(images.checked)
                pixels = decode_samples(samples, both.input_shape[1:3])
                quantize.quantise(f32, pixels, folder / int8.name)
        return int8, precision


def _choose_precision(both: Any, xml: Path, images: ImageIterator) -> str:
    numbers = np.unique(np.linspace(0, images.n - 1, _NUM_COMPARED).astype(int))
    pixels = np.stack([images.image(int(number), 0) for number in numbers])
    f32 = engines.OpenVINOEngine(xml, "f32").run_all(pixels)
    from_keras = [np.asarray(output) for output in both(pixels[:2].astype(np.float32))]
    for features in from_keras:
        _require_finite(features)
    noise = _noise(f32, from_keras)
    if not noise <= MAX_CONVERSION_NOISE:
        raise EngineError(
            f"OpenVINO's features differ from Keras's by {100 * noise:.1f} % of what images "
            "differ by: this release of OpenVINO cannot run the network; choose another backbone."
        )
    if not engines.cpu_has_bf16():
        return "f32"
    noise = _noise(f32, engines.OpenVINOEngine(xml, "bf16").run_all(pixels))
    if noise <= MAX_NOISE:
        return "bf16"
    _log.info("Features are computed in f32: in bf16 they would change by %.0f %%.", 100 * noise)
    return "f32"


def _noise(right: Sequence[np.ndarray], found: Sequence[np.ndarray]) -> float:
    """Return the root mean square error, of some images, as a share of all images' deviation."""

    def share(right: np.ndarray, found: np.ndarray) -> float:
        signal = np.sqrt(right.astype(np.float64).var(axis=0).mean())
        error = np.sqrt(np.square(right[: len(found)].astype(np.float64) - found).mean())
        return float(error / max(signal, 1e-30))

    return max(map(share, right, found))
