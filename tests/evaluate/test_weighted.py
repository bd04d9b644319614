"""Figures of images that count several times, against scikit-learn."""

import warnings

import numpy as np
import pytest
from sklearn import metrics

from jaxnets.evaluate.weighted import evaluate, figures_by_name, is_right
from tests.evaluate.invented import predictions


def _expected(given, probabilities: np.ndarray) -> dict[str, float]:
    labels, said = given.labels, probabilities.argmax(1)
    everything = np.arange(probabilities.shape[1])
    wide = probabilities.astype(np.float64)
    one_hot = np.eye(probabilities.shape[1])[labels]
    confidence, error = wide.max(1), 0.0
    for low in np.arange(15) / 15:
        inside = (confidence > low) & (confidence <= low + 1 / 15)
        if inside.any():
            error += inside.mean() * abs((said == labels)[inside].mean() - confidence[inside].mean())
    halved = 2 if len(everything) == 2 else 1
    return {
        "accuracy": metrics.accuracy_score(labels, said),
        "balanced_accuracy": metrics.balanced_accuracy_score(labels, said),
        "macro_f1": metrics.f1_score(labels, said, average="macro"),
        "log_loss": -np.log(wide[np.arange(len(labels)), labels]).mean(),
        "brier": ((wide - one_hot) ** 2).sum(1).mean() / halved,
        "ece": error,
    }


@pytest.mark.parametrize(
    "given",
    [
        predictions(200),
        predictions(200, 2, seed=1),
        predictions(1),
        predictions(40, skill=20),  # all right
        predictions(40, 7, labels=np.zeros(40, np.int32)),  # one class
    ],
    ids=["four classes", "two classes", "one image", "all right", "one class"],
)
def test_figures_are_those_of_scikit_learn(given):
    probabilities = given.probabilities(1.7)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of classes that are said and not there
        expected = _expected(given, probabilities)
    found = evaluate(figures_by_name(given, temperature=1.7), len(given))
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, abs=1e-6), name


def test_the_five_best_are_those_of_scikit_learn():
    given = predictions(300, 9, skill=0.2)
    expected = metrics.top_k_accuracy_score(given.labels, given.logits, k=5, labels=np.arange(9))
    assert evaluate(figures_by_name(given), 300)["top5"] == pytest.approx(expected)
    assert "top5" not in figures_by_name(predictions(10, 5))


def test_figures_of_several_labels_are_those_of_scikit_learn():
    given = predictions(150, 6, several=True)
    thresholds = (0.3, 0.5, 0.7, 0.2, 0.9, 0.5)
    said = given.probabilities(1.3) > np.array(thresholds, np.float32)
    found = evaluate(figures_by_name(given, temperature=1.3, thresholds=thresholds), 150)
    assert found["accuracy"] == pytest.approx(metrics.accuracy_score(given.labels, said))
    assert found["macro_f1"] == pytest.approx(metrics.f1_score(given.labels, said, average="macro"))
    assert found["micro_f1"] == pytest.approx(metrics.f1_score(given.labels, said, average="micro"))
    assert found["hamming_loss"] == pytest.approx(metrics.hamming_loss(given.labels, said))


@pytest.mark.parametrize("several", [False, True])
def test_an_image_that_counts_twice_is_there_twice(several):
    given = predictions(30, 7, several=several)
    counts = np.random.default_rng(0).integers(0, 4, (3, 30))
    figures = figures_by_name(given)
    for row in counts:
        repeated = given.take(np.repeat(np.arange(30), row))
        expected = evaluate(figures_by_name(repeated), len(repeated))
        for name, figure in figures.items():
            assert figure(row[None])[0] == pytest.approx(expected[name], rel=1e-9), name


def test_nothing_has_no_figures():
    found = evaluate(figures_by_name(predictions(3)), 0)
    assert all(np.isnan(value) for value in found.values())


def test_an_answer_of_several_labels_is_right_where_all_of_them_are():
    given = predictions(50, 3, several=True)
    expected = ((given.logits > 0) == given.labels).all(1)
    np.testing.assert_array_equal(is_right(given), expected)
