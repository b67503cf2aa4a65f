"""The first generation's HTTP contract: its shapes, texts and habits, translated here alone.

`POST /image/detection` answers with HTTP 200 whatever the image was: old callers look only at
`code`. What is not about the image (`TOLD_BY_STATUS`) has a status of its own and the same body.
"""

import json

from imagesieve.model.decisions import ARGMAX, DecisionPolicy
from imagesieve.prediction.predictor import Prediction

PATH = "/image/detection"
GREETING = "Hello World!"

SUCCESS = "00"
FAILURE = "98"
MISSING_MESSAGE = "缺少必要传入参数"

# The first generation's callers look at `code` alone; only what is not about their image gets a
# status of its own.
TOLD_BY_STATUS = frozenset({401, 403, 429, 503, 504})


def success(prediction: Prediction, policy: DecisionPolicy) -> str:
    """Give the answer for a judged image as JSON text."""
    label = label_of(prediction, policy)
    return json.dumps(
        {
            "code": SUCCESS,
            "message": success_message(label),
            "predictedClass": label,
            "probability": str(prediction.probability),
        },
        ensure_ascii=True,
    )


def missing() -> str:
    """Give the answer for a request without the field."""
    return json.dumps({"code": FAILURE, "message": MISSING_MESSAGE}, ensure_ascii=True)


def failure(reason: str) -> str:
    """Give the answer for an image that could not be judged."""
    return json.dumps({"code": FAILURE, "message": failure_message(reason)}, ensure_ascii=True)


def success_message(label: str) -> str:
    """Give the text for a judged image."""
    return f"图片检测成功，类别是：{label}"


def failure_message(reason: str) -> str:
    """Give the text for an image that could not be judged."""
    return f"图片检测失败，原因是：{reason}"


def label_of(prediction: Prediction, policy: DecisionPolicy) -> str:
    """Give the decision; a model with a class `neutral` is never unsure of anything else here.

    The first generation had no policies: below 0.75 it meant to answer `neutral`, always.
    """
    if policy.kind == ARGMAX:
        policy = DecisionPolicy.default_for(list(prediction.probabilities))
    return policy.decide(prediction.probabilities).decision
