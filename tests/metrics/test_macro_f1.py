import numpy as np
import pytest
from sklearn.metrics import f1_score

from jaxnets.metrics.macro_f1 import MACRO_F1
from jaxnets.metrics.metric import Outcome, Totals, figures_of, sums_of


def macro_f1(logits, label, mask, parts=1) -> float:
    totals = Totals()
    for rows in np.array_split(np.arange(len(label)), parts):
        outcome = Outcome(logits[rows], label[rows], mask[rows], np.zeros(len(rows), np.float32))
        totals.add(sums_of([MACRO_F1], outcome))
    return figures_of([MACRO_F1], totals.result())["macro_f1"]


@pytest.mark.parametrize("answered", [True, False], ids=["absent but answered", "absent and never answered"])
def test_it_is_that_of_scikit_learn_also_where_a_class_has_no_examples(answered):
    random = np.random.default_rng(0)
    label = np.repeat(np.arange(4, dtype=np.int32), [60, 10, 3, 1])
    logits = random.normal(size=(74, 5)).astype(np.float32)  # of the fifth class there is no example
    logits[np.arange(74), label] += 1
    if not answered:
        logits[:, 4] = -9
    mask = random.random(74) < 0.8
    mask[-1] = True
    said = logits[mask].argmax(1)
    assert (4 in said) == answered
    expected = f1_score(label[mask], said, average="macro", zero_division=0.0)
    assert macro_f1(logits, label, mask, parts=3) == pytest.approx(expected, rel=1e-12)


def test_without_examples_it_is_nan():
    assert np.isnan(macro_f1(np.zeros((2, 3), np.float32), np.zeros(2, np.int32), np.zeros(2, bool)))
