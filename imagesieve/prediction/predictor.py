"""A model version -> predictions, for one image or thousands."""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from imagesieve import images
from imagesieve.errors import EngineError, ImageError
from imagesieve.model import engines, versions
from imagesieve.model.decisions import DecisionPolicy, Prediction
from imagesieve.threads import map_ahead

__all__ = ["Prediction", "Predictor"]

_SUM_TOLERANCE = 0.02  # of the probabilities: bfloat16 rounds each of them


class Predictor:
    """Predicts images with one model version; safe to call from many threads."""

    def __init__(
        self,
        version: versions.ModelVersion,
        engine: engines.Engine,
        policy: DecisionPolicy | None = None,
    ) -> None:
        self.version = version
        self.engine = engine
        self.policy = policy or version.manifest.policy

    @classmethod
    def load(
        cls,
        model: Path,
        *,
        engine: str = "auto",
        precision: str = "auto",
        policy: DecisionPolicy | None = None,
    ) -> "Predictor":
        """Return a predictor for a version or the current one of a folder, ready to run.

        Raises a ModelError if the version cannot be used, an EngineError if nothing can run it.
        """
        version = versions.load(model)
        predictor = cls(version, engines.open_engine(version, engine, precision), policy)
        predictor.warm_up()
        return predictor

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names in the model's order."""
        return self.version.manifest.classes

    def warm_up(self) -> None:
        """Run once on a grey image, so that the first real one is as quick as the next."""
        height, width = self.version.manifest.image_size
        self.predict_batch(np.full((1, height, width, 3), 128, np.uint8))

    def decode(
        self,
        source: bytes | str | os.PathLike[str],
        limits: images.Limits = images.DEFAULT_LIMITS,
        *,
        sha256: str | None = None,
        at_once: images.DecodingLimit = images.large_images_take_turns,
    ) -> images.DecodedImage:
        """Return an image decoded to the model's input size; see `images.decode`."""
        size = self.version.manifest.image_size
        return images.decode(source, limits, image_size=size, sha256=sha256, at_once=at_once)

    def predict(self, image: images.DecodedImage) -> Prediction:
        """Return the prediction for an image from `decode`, as `predict_batch` does."""
        return self.predict_batch(image.pixels[np.newaxis])[0]

    def predict_batch(self, pixels: np.ndarray) -> list[Prediction]:
        """Return the predictions for (batch, height, width, 3) uint8, RGB, of the model's size.

        Raises:
            EngineError: the engine failed or returned no probabilities.
        """
        rows = self._checked(self.engine.run(pixels)).tolist()
        return [self.policy.decide(dict(zip(self.classes, row, strict=True))) for row in rows]

    def predict_files(
        self, paths: Iterable[str | os.PathLike[str]]
    ) -> Iterator[tuple[str, Prediction | ImageError]]:
        """Yield path and prediction, or the error of that one image, in the order given.

        Raises:
            EngineError: the engine failed; that is no image's fault.
        """
        # One thread more than streams, so that a stream never waits for a decoder.
        threads = self.engine.num_streams + 1
        return map_ahead(self._predict_file, paths, threads=threads, ahead=4 * threads)

    def _predict_file(self, path: str | os.PathLike[str]) -> tuple[str, Prediction | ImageError]:
        try:
            return os.fspath(path), self.predict(self.decode(path))
        except ImageError as error:
            return os.fspath(path), error

    def _checked(self, outputs: np.ndarray) -> np.ndarray:
        """Return (batch, classes) float64 whose rows sum to 1, after the temperature."""
        rows: np.ndarray = outputs.astype(np.float64)
        sums = rows.sum(axis=1, keepdims=True)
        off = np.abs(sums - 1) > _SUM_TOLERANCE
        if not np.isfinite(rows).all() or (rows < 0).any() or off.any():
            raise EngineError(
                f"{self.engine.name} gave no probabilities for {self.version.name}: it is damaged "
                "or the engine is faulty; try --engine keras."
            )
        temperature = self.version.manifest.temperature
        if temperature != 1:  # softmax(logits / T) from softmax(logits): the constant cancels
            # Relative to the largest, so that a small T cannot turn a whole row into zeros.
            rows = (rows / rows.max(axis=1, keepdims=True)) ** (1 / temperature)
            sums = rows.sum(axis=1, keepdims=True)
        normalised: np.ndarray = rows / sums
        return normalised
