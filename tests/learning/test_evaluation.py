import dataclasses
import json
import math

import numpy as np
import pytest

from imagesieve.learning.training.evaluation import class_weights, evaluate

# Six images of three classes; what each was called stands in the largest column.
LABELS = np.array([0, 0, 0, 1, 1, 2])
PROBABILITIES = np.array(
    [
        [0.8, 0.1, 0.1],
        [0.5, 0.3, 0.2],
        [0.2, 0.7, 0.1],  # wrong: 0 called 1
        [0.1, 0.8, 0.1],
        [0.3, 0.6, 0.1],
        [0.1, 0.5, 0.4],  # wrong: 2 called 1
    ]
)


def test_metrics_are_those_counted_by_hand() -> None:
    found = evaluate(["a", "b", "c"], LABELS, PROBABILITIES)
    assert found.num_images == 6
    assert found.accuracy == pytest.approx(4 / 6)
    assert found.confusion == ((2, 1, 0), (0, 2, 0), (0, 1, 0))
    a, b, c = found.classes
    assert (a.name, a.precision, a.recall, a.support) == ("a", 1.0, pytest.approx(2 / 3), 3)
    assert (b.precision, b.recall, b.support) == (0.5, 1.0, 2)
    assert a.f1 == pytest.approx(0.8)
    assert b.f1 == pytest.approx(2 / 3)
    assert (c.precision, c.recall, c.f1, c.support) == (0, 0, 0, 1)
    assert found.macro_f1 == pytest.approx((0.8 + 2 / 3 + 0) / 3)
    by_hand = -sum(math.log(p) for p in (0.8, 0.5, 0.2, 0.8, 0.6, 0.4)) / 6
    assert found.log_loss == pytest.approx(by_hand)


def test_a_class_without_images_gives_zeros_and_no_nan() -> None:
    found = evaluate(["a", "b"], np.array([0]), np.array([[0.9, 0.1]]))
    assert found.classes[1].recall == found.classes[1].precision == found.classes[1].f1 == 0
    json.dumps(dataclasses.asdict(found), allow_nan=False)


def test_a_certain_mistake_costs_much_but_not_infinity() -> None:
    found = evaluate(["a", "b"], np.array([0]), np.array([[0.0, 1.0]], np.float32))
    assert found.log_loss == pytest.approx(-math.log(1e-7))


@pytest.mark.parametrize("weights", [[1, 1, 1], [1, 2, 0.5]])
def test_class_weights_make_all_classes_weigh_the_same(weights: list[float]) -> None:
    labels = np.repeat([0, 1, 2], [10, 30, 60])
    found = class_weights(labels, np.array(weights)[labels], 3)
    totals = found * weights * [10, 30, 60]
    assert totals == pytest.approx([totals.sum() / 3] * 3)
    assert totals.sum() == pytest.approx(np.dot(weights, [10, 30, 60]))


def test_classes_that_weigh_nearly_the_same_get_no_weights() -> None:
    np.testing.assert_array_equal(class_weights(np.repeat([0, 1], [20, 30]), None, 2), [1, 1])
    assert class_weights(np.repeat([0, 1], [20, 31]), None, 2).max() > 1
    labels = np.repeat([0, 1], [30, 10])
    heavy = np.where(labels == 1, 3.0, 1.0)  # both classes weigh 30: nothing to make up for
    np.testing.assert_array_equal(class_weights(labels, heavy, 2), [1, 1])
