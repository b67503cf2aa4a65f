"""A model version -> labels with probabilities, one image or thousands."""

import dataclasses
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from imagesieve import images
from imagesieve.errors import EngineError, ImageError
from imagesieve.model import engines, versions
from imagesieve.model.decisions import DecisionPolicy
from imagesieve.prediction.ahead import map_ahead

_SUM_TOLERANCE = 0.02  # of the probabilities: bfloat16 rounds each of them


@dataclasses.dataclass(frozen=True)
class Prediction:
    """What the model says of one image.

    Attributes:
        label: the most probable class.
        probability: of `label`, 0 to 1.
        probabilities: class -> probability, in the model's order; they sum to 1.
        decision: the answer under the decision policy; `label` or the fallback class.
    """

    label: str
    probability: float
    probabilities: dict[str, float]
    decision: str


class Predictor:
    """Judges images with one model version; safe to call from many threads.

    Attributes:
        version: the model version.
        engine: what runs it.
        policy: the decision policy in force.
    """

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
        """Load a version (or the current one of a model folder), check it, and run it once.

        Raises:
            ModelError: the version cannot be used.
            EngineError: no engine can run it.
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
        """Run once on a grey image, so that the first real one is as quick as the next.

        Raises:
            EngineError: the engine gives no probabilities.
        """
        height, width = self.version.manifest.image_size
        self.judge_pixels(np.full((1, height, width, 3), 128, np.uint8))

    def decode(
        self,
        source: bytes | str | os.PathLike[str],
        limits: images.Limits = images.DEFAULT_LIMITS,
        name: str | None = None,
    ) -> images.DecodedImage:
        """Decode an image to the model's input size; see `images.decode`."""
        size = self.version.manifest.image_size
        return images.decode(source, limits, image_size=size, name=name)

    def judge(self, image: images.DecodedImage) -> Prediction:
        """Judge an image that `decode` gave.

        Raises:
            EngineError: the engine failed or gave no probabilities.
        """
        return self.judge_pixels(image.pixels[np.newaxis])[0]

    def judge_pixels(self, pixels: np.ndarray) -> list[Prediction]:
        """Judge a batch.

        Args:
            pixels: (batch, height, width, 3) uint8, RGB, of the model's size.

        Raises:
            EngineError: the engine failed or gave no probabilities.
        """
        probabilities = self._checked(self.engine.run(pixels))
        return [self._predict(row) for row in probabilities]

    def judge_files(
        self, paths: Iterable[str | os.PathLike[str]]
    ) -> Iterator[tuple[str, Prediction | ImageError]]:
        """Judge many files, in the order given, decoding ahead of the engine.

        Yields:
            path and prediction, or path and the error of that one image.

        Raises:
            EngineError: the engine failed; that is no image's fault.
        """
        # One thread more than streams, so that a stream never waits for a decoder.
        threads = self.engine.num_streams + 1
        ahead = 4 * threads  # enough to stay busy
        yield from map_ahead(self._judge_file, paths, threads=threads, ahead=ahead)

    def describe(self) -> dict[str, Any]:
        """Tell what this predictor is, as JSON values."""
        manifest = self.version.manifest
        height, width = manifest.image_size
        return {
            "name": self.version.name,
            "digest": f"sha256:{self.version.digest}",
            "created": manifest.created,
            "classes": list(manifest.classes),
            "backbone": manifest.backbone,
            "image_size": {"height": height, "width": width},
            "pixel_contract": manifest.pixel_contract,
            "engine": self.engine.name,
            "streams": self.engine.num_streams,
            "decision_policy": self.policy.to_json(),
            "temperature": manifest.temperature,
            "metrics": manifest.metrics,
        }

    def _judge_file(self, path: str | os.PathLike[str]) -> tuple[str, Prediction | ImageError]:
        try:
            return os.fspath(path), self.judge(self.decode(path))
        except ImageError as error:
            return os.fspath(path), error

    def _predict(self, row: np.ndarray) -> Prediction:
        probabilities = dict(zip(self.classes, map(float, row), strict=True))
        label = max(probabilities, key=probabilities.__getitem__)
        probability = probabilities[label]
        decision = self.policy.decide(label, probability)
        return Prediction(label, probability, probabilities, decision)

    def _checked(self, outputs: np.ndarray) -> np.ndarray:
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
