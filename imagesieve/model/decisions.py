"""From probabilities to a prediction: the decision policy that travels with a model.

`argmax` answers the most probable class. `confident` answers `fallback_class` ("not sure, so treat
it as neutral") when no class reaches `min_confidence`.
"""

import argparse
import dataclasses
from collections.abc import Sequence
from typing import Any

from imagesieve import console
from imagesieve.errors import UsageError

ARGMAX = "argmax"
CONFIDENT = "confident"
KINDS = (ARGMAX, CONFIDENT)

DEFAULT_MIN_CONFIDENCE = 0.75
DEFAULT_FALLBACK_CLASS = "neutral"


@dataclasses.dataclass(frozen=True)
class Prediction:
    """What a model says of one image."""

    label: str  # the most probable class
    probability: float  # of `label`, 0 to 1
    probabilities: dict[str, float]  # class -> probability, in the model's order; they sum to 1
    decision: str  # the answer under the decision policy; `label` or the fallback class


@dataclasses.dataclass(frozen=True)
class DecisionPolicy:
    """How the answer for an image is chosen; a UsageError for a wrong kind or confidence."""

    kind: str = ARGMAX  # one of `KINDS`
    min_confidence: float = DEFAULT_MIN_CONFIDENCE  # 0 to 1; what the best class must reach
    fallback_class: str = DEFAULT_FALLBACK_CLASS  # the answer below it, any text

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise UsageError(f"Unknown decision policy {self.kind!r}: use {' or '.join(KINDS)}.")
        if not 0 <= self.min_confidence <= 1:  # True for NaN
            raise UsageError(
                f"The minimum confidence is {self.min_confidence}: it must lie from 0 to 1."
            )

    @classmethod
    def default_for(cls, classes: Sequence[str]) -> "DecisionPolicy":
        """Return the policy of a new model: `confident` when there is a class to fall back to."""
        return cls(CONFIDENT if DEFAULT_FALLBACK_CLASS in classes else ARGMAX)

    def to_json(self) -> dict[str, Any]:
        """Return the policy as it stands in a manifest."""
        return {"kind": ARGMAX} if self.kind == ARGMAX else dataclasses.asdict(self)

    @property
    def fallback(self) -> str | None:
        """The fallback class; None where the policy has none."""
        return self.fallback_class if self.kind == CONFIDENT else None

    def with_min_confidence(self, min_confidence: float | None) -> "DecisionPolicy":
        """Return a policy of another confidence, which makes it `confident`; itself for None."""
        if min_confidence is None:
            return self
        return DecisionPolicy(CONFIDENT, min_confidence, self.fallback_class)

    def decide(self, probabilities: dict[str, float]) -> Prediction:
        """Return the prediction for an image whose classes have these probabilities."""
        label = max(probabilities, key=probabilities.__getitem__)
        probability = probabilities[label]
        is_unsure = self.kind == CONFIDENT and probability < self.min_confidence
        decision = self.fallback_class if is_unsure else label
        return Prediction(label, probability, probabilities, decision)


def add_options(parser: argparse.ArgumentParser, default: str = "as the model says") -> None:
    """Add the options that `from_options` reads; `default` says what happens without them."""
    add = parser.add_argument
    about = (
        "argmax: the most probable class; confident: the fallback class when no class is probable "
        f"enough ({default})"
    )
    add("--decision", choices=KINDS, help=about)
    about = "for --decision confident (0.75)"
    add("--min-confidence", type=console.number(0, 1), metavar="P", help=about)
    add("--fallback-class", metavar="NAME", help="the answer below that (neutral)")


def from_options(options: argparse.Namespace) -> DecisionPolicy | None:
    """Return the policy that the command line asks for, or None when it asks for none."""
    chosen = {"min_confidence": options.min_confidence, "fallback_class": options.fallback_class}
    given = {name: value for name, value in chosen.items() if value is not None}
    if given and options.decision != CONFIDENT:
        raise UsageError("--min-confidence and --fallback-class go with --decision confident.")
    return DecisionPolicy(options.decision, **given) if options.decision else None
