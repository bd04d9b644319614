"""Images of another kind, told from a model's own."""

import numpy as np
import pytest
from scipy.special import logsumexp
from sklearn.metrics import roc_auc_score, roc_curve

from jaxnets.evaluate.unlike import auroc, scores, separation, unlike
from tests.evaluate.invented import predictions


def _drawn(seed: int, levels: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    own, other = random.normal(1, 1, 230), random.normal(0, 1.5, 170)
    return (own, other) if levels is None else (np.round(own * levels), np.round(other * levels))  # with ties


@pytest.mark.parametrize("levels", [None, 2, 0])
def test_the_area_is_scikit_learn_s(levels):
    own, other = _drawn(0, levels)
    labels = np.repeat([1, 0], [len(own), len(other)])
    assert auroc(own, other).value == pytest.approx(roc_auc_score(labels, np.concatenate((own, other))), abs=1e-12)


@pytest.mark.parametrize("levels", [None, 2])
def test_the_false_positive_rate_is_the_curve_s_where_95_percent_of_the_own_are_kept(levels):
    own, other = _drawn(1, levels)
    labels = np.repeat([1, 0], [len(own), len(other)])
    false, true, _ = roc_curve(labels, np.concatenate((own, other)), drop_intermediate=False)
    found = separation(own, other)
    assert found.fpr95 == pytest.approx(false[true >= 0.95].min())
    assert (own >= found.threshold).mean() >= 0.95


def test_the_interval_is_that_of_resampling():
    own, other = _drawn(2)
    random = np.random.default_rng(0)
    drawn = [auroc(random.choice(own, len(own)), random.choice(other, len(other))).value for _ in range(600)]
    found = auroc(own, other)
    np.testing.assert_allclose((found.low, found.high), np.quantile(drawn, (0.025, 0.975)), atol=0.006)


@pytest.mark.parametrize("temperature", [1.0, 2.5])
def test_scores_follow_their_formulae(temperature):
    given = predictions(50, 6)
    wide = given.logits.astype(np.float64)
    found = scores(given, temperature)
    np.testing.assert_allclose(found["energy"], temperature * logsumexp(wide / temperature, axis=1))
    np.testing.assert_allclose(found["probability"], given.probabilities(temperature).max(1))
    np.testing.assert_allclose(found["logit"], wide.max(1))
    several = predictions(50, 6, several=True)
    each = np.log1p(np.exp(several.logits.astype(np.float64) / temperature))
    np.testing.assert_allclose(scores(several, temperature)["energy"], temperature * each.sum(1), rtol=1e-6)


def test_scores_that_are_apart_separate_wholly_and_equal_ones_not_at_all():
    apart = separation(np.array([2.0, 3.0]), np.array([0.0, 1.0]))
    assert (apart.auroc.value, apart.fpr95) == (1, 0)
    equal = separation(np.ones(5), np.ones(3))
    assert (equal.auroc.value, equal.fpr95) == (0.5, 1)


def test_one_image_on_either_side_has_an_area_and_no_interval():
    found = separation(np.array([1.0]), np.array([0.0]))
    assert found.auroc.value == 1
    assert np.isnan(found.auroc.low)


def test_a_distance_counts_the_nearer_as_the_model_s_own():
    own, other = predictions(30), predictions(20, seed=1)
    found = unlike(own, other, "noise", distances=(np.full(30, 0.1), np.full(20, 4.0)))
    assert found.scores["distance"].auroc.value == 1
    assert found.to_json()["scores"].keys() == {"probability", "energy", "logit", "distance"}
