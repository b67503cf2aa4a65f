"""What the service says of a judged image, as JSON values."""

from collections.abc import Mapping
from typing import Any

from imagesieve.serving.pipeline import PredictionResult
from imagesieve.serving.predict_options import PredictOptions
from imagesieve.serving.service import milliseconds

DECIMALS = 9  # of a probability: a thousand of them still sum to 1 within a millionth

UNSURE = "unsure"


def answer(
    image_id: str,
    judged: PredictionResult,
    wanted: PredictOptions,
    total_seconds: float,
    *,
    is_held: bool,
) -> dict[str, Any]:
    """Give the answer for one image.

    Args:
        image_id: of this prediction.
        judged: what was found.
        wanted: how the caller wanted it.
        total_seconds: from reading the image, which may be fetching it, to the answer.
        is_held: whether it can be corrected by its id alone.
    """
    prediction, known = judged.prediction, judged.known
    return {
        "id": image_id,
        **({"data_id": wanted.data_id} if wanted.data_id is not None else {}),
        "label": prediction.label,
        "probability": round(prediction.probability, DECIMALS),
        "probabilities": most_probable(prediction.probabilities, wanted.top_k),
        "decision": prediction.decision,
        "decision_policy": judged.policy.to_json(),
        "flags": [UNSURE] if prediction.decision != prediction.label else [],
        "model": {name: judged.described[name] for name in ("name", "digest", "engine")},
        "image": {
            **{
                name: getattr(known, name)
                for name in ("format", "width", "height", "orientation", "frames", "sha256")
            },
            "truncated": False,  # an image that ends early is refused
        },
        "timing_ms": {
            **{stage: milliseconds(seconds) for stage, seconds in judged.seconds.items()},
            "total": milliseconds(total_seconds),
        },
        "cached": judged.is_cached,
        "held": is_held,
    }


def most_probable(probabilities: Mapping[str, float], top_k: int | None) -> dict[str, float]:
    """Give all in the model's order, or the `top_k` most probable, best first."""
    names = list(probabilities)
    if top_k is not None:
        names = sorted(names, key=lambda name: -probabilities[name])[:top_k]
    return {name: round(probabilities[name], DECIMALS) for name in names}
