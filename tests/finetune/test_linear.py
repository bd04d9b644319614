import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.multiclass import OneVsRestClassifier

from jaxnets.errors import UserError
from jaxnets.finetune.linear import Scale, Span, best_scale, logistic, losses_of, ridge


def drawn(n: int = 90, f: int = 12, classes: int = 3, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Returns features of classes that overlap, and the classes."""
    random = np.random.default_rng(seed)
    labels = random.integers(0, classes, n)
    centres = random.normal(0, 1, (classes, f))
    return random.normal(0, 1, (n, f)) + 0.6 * centres[labels] + 2, labels


def one_hot(labels: np.ndarray, classes: int) -> np.ndarray:
    return np.eye(classes)[labels]


def objective(x, targets, kernel, bias, l2, share, activation="softmax") -> float:
    return float(share @ losses_of(x @ kernel + bias, targets, activation) + 0.5 * l2 * (kernel**2).sum())


@pytest.mark.parametrize("l2", [1.0, 1e-2, 1e-4])
@pytest.mark.parametrize("weighted", [False, True], ids=["alike", "weighted"])
def test_logistic_agrees_with_scikit_learn(l2, weighted):
    x, labels = drawn()
    weights = np.random.default_rng(1).uniform(0.2, 3, len(x)) if weighted else None
    ours = logistic(x, one_hot(labels, 3), l2, weights=weights)
    total = len(x) if weights is None else weights.sum()
    theirs = LogisticRegression(C=1 / (l2 * total), tol=1e-10, max_iter=10_000).fit(x, labels, weights)
    share = np.full(len(x), 1 / len(x)) if weights is None else weights / total
    minimum = objective(x, one_hot(labels, 3), theirs.coef_.T, theirs.intercept_, l2, share)
    assert ours.objective == pytest.approx(minimum, abs=1e-6)
    np.testing.assert_allclose(ours.linear.kernel, theirs.coef_.T, atol=2e-3)


def test_logistic_of_two_classes_is_scikit_learns_at_half_the_penalty():
    x, labels = drawn(classes=2)
    ours = logistic(x, one_hot(labels, 2), 0.01)
    theirs = LogisticRegression(C=2 / (0.01 * len(x)), tol=1e-10, max_iter=10_000).fit(x, labels)
    logits = ours.linear(x)
    np.testing.assert_allclose(logits[:, 1] - logits[:, 0], theirs.decision_function(x), atol=1e-3)


def test_logistic_of_several_labels_is_one_regression_for_each():
    x, labels = drawn()
    targets = one_hot(labels, 3)
    targets[::4, 0] = 1
    ours = logistic(x, targets, 0.01, activation="sigmoid")
    each = LogisticRegression(C=1 / (0.01 * len(x)), tol=1e-10, max_iter=10_000)
    theirs = OneVsRestClassifier(each).fit(x, targets.astype(int))
    np.testing.assert_allclose(ours.linear(x), theirs.decision_function(x), atol=1e-3)


def test_logistic_in_float32_reaches_the_minimum_of_float64():
    x, labels = drawn(400, 30)
    wide = logistic(x, one_hot(labels, 3), 1e-3)
    narrow = logistic(x.astype(np.float32), one_hot(labels, 3), 1e-3)
    share = np.full(len(x), 1 / len(x))
    found = objective(x, one_hot(labels, 3), *narrow.linear, 1e-3, share)
    assert found == pytest.approx(wide.objective, abs=1e-5)


def test_logistic_goes_on_from_a_start():
    x, labels = drawn()
    first = logistic(x, one_hot(labels, 3), 0.02)
    again = logistic(x, one_hot(labels, 3), 0.01, start=first.linear)
    assert again.objective == pytest.approx(logistic(x, one_hot(labels, 3), 0.01).objective, abs=1e-7)


@pytest.mark.parametrize("f", [12, 200], ids=["more images", "more features"])
def test_ridge_has_its_closed_form(f):
    x, labels = drawn(f=f)
    weights = np.random.default_rng(2).uniform(0.5, 2, len(x))
    ours = ridge(x, one_hot(labels, 3), 30.0, weights=weights)
    wide = np.c_[x, np.full(len(x), 100.0)]
    theirs = Ridge(alpha=30.0, fit_intercept=False, tol=1e-12, solver="cholesky")
    theirs.fit(wide, 2 * one_hot(labels, 3) - 1, weights / weights.mean())
    np.testing.assert_allclose(ours(x), theirs.predict(wide), atol=1e-7)


def test_ridge_without_a_penalty_is_refused_where_it_has_no_one_answer():
    x, labels = drawn(n=5)
    with pytest.raises(UserError, match=r"config.finetune.regularisation above 0"):
        ridge(np.r_[x, x], one_hot(np.r_[labels, labels], 3), 0.0)


def test_a_head_of_standardised_features_becomes_one_of_the_features_as_they_are():
    x, labels = drawn()
    scale = Scale.of(x)
    assert np.allclose(scale(x).mean(0), 0)
    assert np.allclose(scale(x).std(0), 1, atol=1e-4)
    head = logistic(scale(x), one_hot(labels, 3), 0.1).linear
    np.testing.assert_allclose(scale.undo(head)(x), head(scale(x)), atol=1e-9)


def test_a_head_in_the_span_of_few_images_is_the_head_of_the_features():
    x, labels = drawn(n=20, f=50)
    span = Span.of(x)
    assert span.features.shape == (20, 20)
    within = logistic(span.features, one_hot(labels, 3), 0.1)
    plain = logistic(x, one_hot(labels, 3), 0.1)
    assert within.objective == pytest.approx(plain.objective, abs=1e-8)
    np.testing.assert_allclose(span.undo(within.linear)(x), plain.linear(x), atol=1e-4)


def test_logits_are_scaled_to_what_the_images_bear_out():
    random = np.random.default_rng(0)
    logits = random.normal(0, 2, (20_000, 3))
    powers = np.exp(logits)
    labels = (random.random((20_000, 1)) > np.cumsum(powers / powers.sum(1, keepdims=True), 1)).sum(1)
    head = logistic(np.eye(3), np.eye(3), 1.0).linear._replace(kernel=np.eye(3), bias=np.zeros(3))
    assert best_scale(head, logits / 4, one_hot(labels, 3), "softmax") == pytest.approx(4, rel=0.05)


def test_images_that_are_all_told_apart_do_not_ask_for_logits_without_end():
    head = logistic(np.eye(3), np.eye(3), 1.0).linear._replace(kernel=np.eye(3), bias=np.zeros(3))
    labels = np.arange(30) % 3
    factor = best_scale(head, one_hot(labels, 3), one_hot(labels, 3), "softmax")
    certainty = np.exp(factor) / (np.exp(factor) + 2)
    assert 0.9 < certainty < 0.99
