import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score

from jaxnets.metrics.balanced_accuracy import BALANCED_ACCURACY
from jaxnets.metrics.metric import Outcome, Totals, figures_of, sums_of


def balanced(logits, label, mask) -> float:
    totals = Totals()
    totals.add(sums_of([BALANCED_ACCURACY], Outcome(logits, label, mask, np.zeros(len(label), np.float32))))
    return figures_of([BALANCED_ACCURACY], totals.result())["balanced_accuracy"]


def test_every_class_counts_the_same_however_many_examples_it_has():
    random = np.random.default_rng(0)
    label = np.repeat(np.arange(4, dtype=np.int32), [60, 10, 3, 1])
    logits = random.normal(size=(74, 5)).astype(np.float32)  # of the fifth class there is no example
    mask = random.random(74) < 0.8
    mask[-1] = True
    expected = balanced_accuracy_score(label[mask], np.minimum(logits[mask].argmax(1), 4))
    assert balanced(logits, label, mask) == pytest.approx(expected)


def test_without_examples_it_is_nan():
    assert np.isnan(balanced(np.zeros((2, 3), np.float32), np.zeros(2, np.int32), np.zeros(2, bool)))
