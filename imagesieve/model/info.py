"""The facts about a model that is in use: for its users, the HTTP API and metrics."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from imagesieve.model.decisions import DecisionPolicy
from imagesieve.model.engines import Engine
from imagesieve.model.versions import ModelVersion


@dataclasses.dataclass(frozen=True)
class ModelInfo:
    """A model version, the engine that runs it, and the decision policy in force.

    Attributes:
        name: of the version's folder.
        digest: `sha256:` and the 64 hexadecimal digits of its manifest's SHA-256.
        created: when it was made, ISO 8601.
        classes: names, in the order of the model's outputs.
        backbone: of the network.
        image_size: (height, width) in pixels.
        pixel_contract: see `images.PIXEL_CONTRACT`.
        engine: engine and precision, for example `openvino-bf16`.
        num_streams: how many runs at once the engine profits from.
        policy: how a class is decided on.
        temperature: that the probabilities are softened by.
        metrics: as measured when the version was made.
    """

    name: str
    digest: str
    created: str
    classes: tuple[str, ...]
    backbone: str
    image_size: tuple[int, int]
    pixel_contract: str
    engine: str
    num_streams: int
    policy: DecisionPolicy
    temperature: float
    metrics: Mapping[str, Any]

    @classmethod
    def of(cls, version: ModelVersion, engine: Engine, policy: DecisionPolicy) -> "ModelInfo":
        """Return the info of a version that is run by `engine`."""
        manifest = version.manifest
        return cls(
            name=version.name,
            digest=f"sha256:{version.digest}",
            created=manifest.created,
            classes=manifest.classes,
            backbone=manifest.backbone,
            image_size=manifest.image_size,
            pixel_contract=manifest.pixel_contract,
            engine=engine.name,
            num_streams=engine.num_streams,
            policy=policy,
            temperature=manifest.temperature,
            metrics=manifest.metrics,
        )

    def to_json(self) -> dict[str, Any]:
        """Return the info as JSON values."""
        height, width = self.image_size
        return {
            "name": self.name,
            "digest": self.digest,
            "created": self.created,
            "classes": list(self.classes),
            "backbone": self.backbone,
            "image_size": {"height": height, "width": width},
            "pixel_contract": self.pixel_contract,
            "engine": self.engine,
            "streams": self.num_streams,
            "decision_policy": self.policy.to_json(),
            "temperature": self.temperature,
            "metrics": self.metrics,
        }
