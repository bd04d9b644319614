"""The figures of several labels per image are scikit-learn's."""

import warnings

import numpy as np
import pytest
from sklearn import metrics as sk

from jaxnets.evaluate.several_labels import judge_several
from tests.evaluate import made

CASES = {
    "random": made.random(300, 7, several=True),
    "one label": made.random(50, 1, 1, several=True),
    "one example": made.predictions([[1, 0, 1]], [[2.0, 1, -1]]),
    "an absent label": made.predictions([[1, 0], [0, 0], [1, 0]], [[2.0, 1], [-1, -2], [0.5, -1]]),
    "a label that all have": made.predictions([[1, 1], [1, 0], [1, 1]], [[2.0, 1], [-1, -2], [0.5, -1]]),
    "no label at all": made.predictions(np.zeros((4, 3)), np.random.default_rng(2).normal(size=(4, 3))),
    "ties": made.predictions([[1, 0], [0, 1], [1, 1], [0, 0]], [[1.0, 1], [1, 1], [0, 0], [0, 1]]),
}


@pytest.fixture(params=CASES, ids=lambda name: name.replace(" ", "-"))
def case(request):
    p = CASES[request.param]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what is undefined
        yield p, judge_several(p)


def same(found, expected):
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6, equal_nan=True)


def test_hamming_loss_and_cells_are_scikit_learn_s(case):
    p, judged = case
    said = p.logits > 0
    same(judged.figures["hamming_loss"], (said != p.labels).mean())
    for i in range(said.shape[1]):  # of one column scikit-learn takes yes and no for two classes
        expected = sk.confusion_matrix(p.labels[:, i], said[:, i], labels=[False, True])
        np.testing.assert_array_equal(judged.cells[i], expected)
    same(judged.right.mean(), sk.accuracy_score(p.labels, said))


def test_average_precision_and_area_of_each_label_are_scikit_learn_s(case):
    p, judged = case
    for i in range(p.logits.shape[1]):
        has, scores = p.labels[:, i], p.logits[:, i]
        same(judged.ranking.average_precision[i], sk.average_precision_score(has, scores) if has.any() else np.nan)
        both = has.any() and not has.all()
        same(judged.ranking.roc_auc[i], sk.roc_auc_score(has, scores) if both else np.nan)
    known = judged.ranking.average_precision[~np.isnan(judged.ranking.average_precision)]
    same(judged.figures["mean_average_precision"], known.mean() if len(known) else np.nan)


def test_f1_at_each_threshold_is_scikit_learn_s():
    p = CASES["random"]
    found = judge_several(p).figures["f1_at_thresholds"]
    for threshold in (0.05, 0.3, 0.5, 0.95):
        said = p.probabilities() > np.float32(threshold)
        for average in ("macro", "micro"):
            same(found[f"{threshold:.2f}"][average], sk.f1_score(p.labels, said, average=average, zero_division=np.nan))


def test_averages_are_scikit_learn_s_of_what_is_defined():
    p = CASES["random"]
    judged = judge_several(p, (0.4,) * 7)
    for average in ("macro", "micro", "weighted"):
        expected = sk.precision_recall_fscore_support(p.labels, p.probabilities() > 0.4, average=average)
        same([judged.figures[f"{average}_{key}"] for key in ("precision", "recall", "f1")], expected[:3])


def test_log_loss_and_brier_score_are_those_of_the_questions(case):
    p, judged = case
    chance = 1 / (1 + np.exp(-p.logits.astype(np.float64)))
    asked, sure = p.labels.reshape(-1), chance.reshape(-1)
    same(judged.figures["log_loss"], sk.log_loss(asked, sure, labels=[False, True]))
    same(judged.figures["brier"], ((sure - asked) ** 2).mean())


def test_confidence_is_that_of_the_least_sure_answer():
    judged = judge_several(made.predictions([[1, 0], [0, 0]], [[3.0, -1], [-2, 0.1]]))
    least = 1 / (1 + np.exp(-np.array([1.0, 0.1])))
    np.testing.assert_allclose(judged.confidence, least, rtol=1e-6)
