"""The first generation's HTTP contract: its shapes and texts, `POST /image/detection`.

It answers with HTTP 200 whatever the image was: old callers look only at `code`. What does not
concern the image (`TOLD_BY_STATUS`) has a status of its own and the same body.
"""

import json

from imagesieve.model.decisions import ARGMAX, DecisionPolicy
from imagesieve.prediction.predictor import Prediction

PATH = "/image/detection"
GREETING = "Hello World!"

SUCCESS = "00"
FAILURE = "98"
MISSING_MESSAGE = "缺少必要传入参数"

TOLD_BY_STATUS = frozenset({401, 403, 429, 503, 504})


def success(prediction: Prediction, policy: DecisionPolicy) -> str:
    """Return the answer for an image as JSON text."""
    label = label_of(prediction, policy)
    return json.dumps(
        {
            "code": SUCCESS,
            "message": success_message(label),
            "predictedClass": label,
            "probability": str(prediction.probability),
        }
    )


def missing() -> str:
    """Return the answer for a request without the field."""
    return json.dumps({"code": FAILURE, "message": MISSING_MESSAGE})


def failure(reason: str) -> str:
    """Return the answer for an image that could not be classified."""
    return json.dumps({"code": FAILURE, "message": failure_message(reason)})


def success_message(label: str) -> str:
    """Return the text for an image."""
    return f"图片检测成功，类别是：{label}"


def failure_message(reason: str) -> str:
    """Return the text for an image that could not be classified."""
    return f"图片检测失败，原因是：{reason}"


def label_of(prediction: Prediction, policy: DecisionPolicy) -> str:
    """Return the decision; where a class is `neutral`, it is that class below the confidence.

    The first generation had no policies: below 0.75 it meant to answer `neutral`, always.
    """
    if policy.kind == ARGMAX:
        policy = DecisionPolicy.default_for(list(prediction.probabilities))
    return policy.decide(prediction.probabilities).decision
