"""A prediction -> what the service answers."""

from collections.abc import Mapping

from msgspec import UNSET, UnsetType

from imagesieve.serving import schemas
from imagesieve.serving.pipeline import PredictionResult
from imagesieve.serving.service import milliseconds

DECIMALS = 9  # of a probability: a thousand of them still sum to 1 within a millionth


def answer(
    image_id: str,
    result: PredictionResult,
    options: schemas.PredictOptions,
    total_seconds: float,
    *,
    is_held: bool,
) -> schemas.Prediction:
    """Return the answer for one image.

    Args:
        image_id: of this prediction.
        result: what was found.
        options: of the request.
        total_seconds: from reading the image, which may be fetching it, to the answer.
        is_held: whether it can be corrected by its id alone.
    """
    prediction, known, model = result.prediction, result.cached, result.model
    seconds = {stage: milliseconds(spent) for stage, spent in result.seconds.items()}
    return schemas.Prediction(
        id=image_id,
        data_id=options.data_id,
        label=prediction.label,
        probability=round(prediction.probability, DECIMALS),
        probabilities=most_probable(prediction.probabilities, options.top_k),
        decision=prediction.decision,
        decision_policy=schemas.DecisionPolicy(**result.policy.to_json()),
        flags=["unsure"] if prediction.decision != prediction.label else [],
        model=schemas.ServedModel(model.name, model.digest, model.engine),
        image=schemas.ImageInfo(
            known.format,  # type: ignore[arg-type]  # one of the formats that are decoded
            known.width,
            known.height,
            known.orientation,
            known.frames,
            known.sha256,
        ),
        timing_ms=schemas.TimingMs(**seconds, total=milliseconds(total_seconds)),
        cached=result.is_cached,
        held=is_held,
    )


def most_probable(probabilities: Mapping[str, float], top_k: int | UnsetType) -> dict[str, float]:
    """Return all in the model's order, or the `top_k` most probable, best first."""
    names = list(probabilities)
    if top_k is not UNSET:
        names = sorted(names, key=lambda name: -probabilities[name])[:top_k]
    return {name: round(probabilities[name], DECIMALS) for name in names}
