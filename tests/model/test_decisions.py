import pytest

from imagesieve.errors import UsageError
from imagesieve.model.decisions import ARGMAX, CONFIDENT, DecisionPolicy, Prediction

RULES = ("neutral", "political", "porn", "terrorism")


@pytest.mark.parametrize(
    ("policy", "probability", "answer"),
    [
        (DecisionPolicy(ARGMAX), 0.0, "porn"),
        (DecisionPolicy(CONFIDENT), 0.0, "neutral"),
        (DecisionPolicy(CONFIDENT), 0.7499, "neutral"),
        (DecisionPolicy(CONFIDENT), 0.75, "porn"),
        (DecisionPolicy(CONFIDENT), 1.0, "porn"),
        (DecisionPolicy(CONFIDENT, 0.9, "ask a person"), 0.89, "ask a person"),
        (DecisionPolicy(CONFIDENT, 0), 0.0, "porn"),
        (DecisionPolicy(CONFIDENT, 1), 0.999, "neutral"),
        (DecisionPolicy(CONFIDENT, 1), 1.0, "porn"),
    ],
)
def test_argmax_answers_the_best_class_and_confident_falls_back_below_its_confidence(
    policy: DecisionPolicy, probability: float, answer: str
) -> None:
    probabilities = {"neutral": -1.0, "porn": probability}
    expected = Prediction("porn", probability, probabilities, answer)
    assert policy.decide(probabilities) == expected


def test_a_new_model_is_confident_only_with_a_class_to_fall_back_to() -> None:
    assert DecisionPolicy.default_for(RULES) == DecisionPolicy(CONFIDENT, 0.75, "neutral")
    assert DecisionPolicy.default_for(("menu", "not-menu")) == DecisionPolicy(ARGMAX)


@pytest.mark.parametrize("confidence", [-0.01, 1.01, float("nan"), float("inf")])
def test_a_confidence_outside_0_to_1_is_refused(confidence: float) -> None:
    with pytest.raises(UsageError, match="from 0 to 1"):
        DecisionPolicy(CONFIDENT, confidence)


def test_an_unknown_kind_is_refused_with_those_that_exist() -> None:
    with pytest.raises(UsageError, match="'guess': use argmax or confident"):
        DecisionPolicy("guess")
