"""The figures of one label per image are scikit-learn's, on random and on degenerate input."""

import warnings

import numpy as np
import pytest
from sklearn import metrics as sk

from jaxnets.evaluate.ranking import curves
from jaxnets.evaluate.single_label import judge
from tests.evaluate import made

CASES = {
    "random": made.random(300, 7),
    "two classes": made.random(200, 2, 1),
    "many classes": made.random(400, 60, 2),
    "an absent class": made.predictions([0, 0, 2, 2, 2, 0], np.random.default_rng(3).normal(size=(6, 4))),
    "an absent class that is never said": made.predictions(
        [0, 1, 1, 0], [[1, 0, -9], [0, 1, -9], [2, 0, -9], [1, 0, -9]]
    ),
    "one class only": made.predictions([1, 1, 1, 1], np.random.default_rng(4).normal(size=(4, 3))),
    "one class only, of two": made.predictions([1, 1, 1], [[0, 1], [1, 0], [0, 2]]),
    "ties": made.predictions([0, 1, 2, 0, 1, 2], [[1, 1, 0], [1, 1, 0], [1, 1, 0], [0, 0, 0], [0, 0, 0], [1, 0, 1]]),
    "all equal": made.predictions([0, 1, 2, 0], np.zeros((4, 3))),
    "one example": made.predictions([2], [[0.1, 0.4, 0.2]]),
    "all right": made.predictions([0, 1, 2], 30 * np.eye(3)),
    "all wrong": made.predictions([1, 2, 0], 30 * np.eye(3)),
}


@pytest.fixture(params=CASES, ids=lambda name: name.replace(" ", "-"))
def case(request):
    p = CASES[request.param]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what is undefined
        yield p, judge(p)


def same(found, expected):
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6, equal_nan=True)


def test_precision_recall_and_f1_of_each_class_are_scikit_learn_s(case):
    p, judged = case
    every = range(p.logits.shape[1])
    precision, recall, f1, support = sk.precision_recall_fscore_support(
        p.labels, p.said, labels=every, zero_division=np.nan
    )
    same(judged.shares.precision, precision)
    same(judged.shares.recall, recall)
    same(judged.shares.support, support)
    same(judged.shares.f1, f1)
    rows = [row["precision"] for row in judged.per_class]
    assert [value is None for value in rows] == np.isnan(precision).tolist()


@pytest.mark.parametrize("average", ["macro", "micro", "weighted"])
def test_their_averages_are_scikit_learn_s(case, average):
    p, judged = case
    expected = sk.precision_recall_fscore_support(p.labels, p.said, average=average, zero_division=0)
    same([judged.figures[f"{average}_{key}"] for key in ("precision", "recall", "f1")], expected[:3])


def test_matthews_correlation_and_the_confusion_matrix_are_scikit_learn_s(case):
    p, judged = case
    same(judged.figures["matthews"], sk.matthews_corrcoef(p.labels, p.said))
    np.testing.assert_array_equal(
        judged.figures["confusion"], sk.confusion_matrix(p.labels, p.said, labels=range(p.logits.shape[1]))
    )


def test_areas_under_the_curves_of_each_class_are_scikit_learn_s(case):
    p, judged = case
    for i in range(p.logits.shape[1]):
        has, scores = p.labels == i, p.probabilities()[:, i]
        if has.any() and not has.all():
            same(judged.ranking.roc_auc[i], sk.roc_auc_score(has, scores))
        else:
            assert np.isnan(judged.ranking.roc_auc[i])
            assert judged.per_class[i]["roc_auc"] is None
        same(judged.ranking.average_precision[i], sk.average_precision_score(has, scores) if has.any() else np.nan)


def test_their_means_are_scikit_learn_s_where_all_classes_are_there():
    for name in ("random", "many classes"):
        p = CASES[name]
        same(judge(p).figures["roc_auc"], sk.roc_auc_score(p.labels, p.probabilities(), multi_class="ovr"))
    p = CASES["two classes"]
    same(judge(p).figures["roc_auc"], sk.roc_auc_score(p.labels, p.probabilities()[:, 1]))


def test_log_loss_and_brier_score_are_scikit_learn_s(case):
    p, judged = case
    z = p.logits.astype(np.float64)
    exact = np.exp(z) / np.exp(z).sum(1, keepdims=True)
    every = range(z.shape[1])
    same(judged.figures["log_loss"], sk.log_loss(p.labels, exact, labels=every))
    if z.shape[1] == 2:
        same(judged.figures["brier"], sk.brier_score_loss(p.labels, exact[:, 1], pos_label=1))
    else:
        same(judged.figures["brier"], sk.brier_score_loss(p.labels, exact, labels=every))


def test_log_loss_is_finite_where_a_probability_is_none_in_float32():
    p = made.predictions([0, 1], [[0, 400], [0, 400]])
    assert judge(p).figures["log_loss"] == pytest.approx(200)
    assert judge(p, temperature=4).figures["log_loss"] == pytest.approx(50)


def test_a_temperature_leaves_the_answers_and_changes_how_sure_they_are():
    p = CASES["random"]
    cold, warm = judge(p), judge(p, temperature=3)
    assert cold.figures["confusion"] == warm.figures["confusion"]
    assert warm.figures["mean_confidence"] < cold.figures["mean_confidence"]
    z = p.logits.astype(np.float64) / 3
    expected = np.exp(z) / np.exp(z).sum(1, keepdims=True)
    np.testing.assert_allclose(warm.probabilities, expected, rtol=1e-6)


@pytest.mark.parametrize("kind", ["smooth", "ties", "one value"])
def test_the_points_of_the_curves_are_scikit_learn_s(kind):
    random = np.random.default_rng(3)
    has = random.random(200) < 0.3
    scores = random.normal(size=200) + has
    scores = {"smooth": scores, "ties": np.round(scores), "one value": np.zeros(200)}[kind].astype(np.float32)
    found = curves(has, scores)
    false, true, _ = sk.roc_curve(has, scores, drop_intermediate=False)
    np.testing.assert_allclose(found.false, false, atol=1e-12)
    np.testing.assert_allclose(found.true, true, atol=1e-12)
    precision, recall, _ = sk.precision_recall_curve(has, scores)
    np.testing.assert_allclose(found.precision, precision[::-1], atol=1e-12)
    np.testing.assert_allclose(found.true, recall[::-1], atol=1e-12)
