"""Golden images: a few that travel with a model version, with Keras's probabilities for them.

An engine that serves the version must return nearly the same. That finds what a checksum cannot: an
engine of another release that computes something else, or a file that was put into the wrong
version before it was sealed.
"""

import concurrent.futures
import dataclasses
import io
import zipfile
from pathlib import Path

import numpy as np

from imagesieve.errors import ModelDamagedError
from imagesieve.files import write_bytes
from imagesieve.model.engines import Engine
from imagesieve.model.versions import GOLDEN, ModelVersion

MAX_IMAGES = 8

# Of a probability. Where the best class has more than 0.5 and this, it stays the best.
TOLERANCES = {"f32": 0.02, "bf16": 0.08, "int8": 0.25}
MAX_DIFFERENCE = 1e-3  # of a probability, between Keras and what was just converted, in f32

_HEADER_BYTES = 4096  # of an array in the file, at most


@dataclasses.dataclass(frozen=True, eq=False)
class Golden:
    pixels: np.ndarray  # (images, height, width, 3) uint8, RGB, 0 to 255, as the network takes them
    probabilities: np.ndarray  # (images, classes) float32, of Keras in f32, before any temperature


def write(path: Path, golden: Golden) -> None:
    """Write golden images as one compressed file; the same ones give the same bytes."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, pixels=golden.pixels, probabilities=golden.probabilities)
    write_bytes(path, buffer.getvalue())


def read(version: ModelVersion) -> Golden | None:
    """Return a version's golden images, if it has any, or raise a ModelDamagedError."""
    path = version.file(GOLDEN)
    if path is None:
        return None
    height, width = version.manifest.image_size
    num_classes = len(version.manifest.classes)
    try:
        _check_size(path, MAX_IMAGES * max(height * width * 3, num_classes * 4) + _HEADER_BYTES)
        with np.load(path, allow_pickle=False) as file:
            golden = Golden(file["pixels"], file["probabilities"])
    except Exception as error:  # a file that is not ours raises nearly anything
        raise _damaged(version, str(error) or type(error).__name__) from error
    count = len(golden.pixels) if golden.pixels.ndim else 0
    found = [(str(x.dtype), x.shape) for x in (golden.pixels, golden.probabilities)]
    expected = [("uint8", (count, height, width, 3)), ("float32", (count, num_classes))]
    if not 1 <= count <= MAX_IMAGES or found != expected:
        raise _damaged(version, f"arrays of {found} do not fit")
    if not np.isfinite(golden.probabilities).all():
        raise _damaged(version, "a probability is not a number")
    return golden


def difference(engine: Engine, golden: Golden) -> float:
    """Return the largest difference of a probability from the golden one; NaN if one is NaN."""
    # Each image alone, as serving runs them: a larger batch would keep its memory for ever.
    with concurrent.futures.ThreadPoolExecutor(engine.num_streams) as pool:
        found = list(pool.map(lambda image: engine.run(image[np.newaxis])[0], golden.pixels))
    return float(np.abs(np.stack(found) - golden.probabilities).max())


def mismatch(engine: Engine, golden: Golden) -> str | None:
    """Return how far an engine is off, or None if it predicts the golden images as it should."""
    tolerance = TOLERANCES[engine.name.rpartition("-")[2]]
    found = difference(engine, golden)
    if found <= tolerance:  # False for NaN
        return None
    return (
        f"on its golden images {engine.name} differs by up to {found:.3f} of a probability from "
        f"Keras, where {tolerance:g} is allowed"
    )


def _check_size(path: Path, most: int) -> None:
    with zipfile.ZipFile(path) as archive:
        for entry in archive.infolist():
            if entry.file_size > most:  # no more than this will be unpacked, whatever follows
                raise ValueError(f"{entry.filename[:100]!r} has {entry.file_size:,} bytes")


def _damaged(version: ModelVersion, reason: str) -> ModelDamagedError:
    return ModelDamagedError(
        f"{version.path / GOLDEN} holds no golden images of this model ({reason}): copy the folder "
        "again or choose another version."
    )
