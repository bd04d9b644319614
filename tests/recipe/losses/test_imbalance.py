import jax
import numpy as np
import pytest
from sklearn.utils.class_weight import compute_class_weight

from jaxnets.recipe.losses.cross_entropy import SigmoidCrossEntropy, SoftmaxCrossEntropy
from jaxnets.recipe.losses.focal import Focal
from jaxnets.recipe.losses.imbalance import Rebalance, balanced_positive_weights, balanced_weights, logit_adjustment
from jaxnets.recipe.losses.loss import soft_target

# What PyTorch 2.13 gives, in float64, for these logits with these weights.
LOGITS = np.array([[1.2, -0.3, 0.5], [-1.0, 2.0, 0.1], [0.3, 0.2, -0.9], [2.1, -1.4, 0.7]], np.float32)
WEIGHTS = (0.5, 2.0, 3.0)
LABELS = np.array([0, 1, 2, 0], np.int32)
MIXED = np.array([[0.7, 0.2, 0.1], [0, 1, 0], [0.25, 0.25, 0.5], [1, 0, 0]], np.float32)
SEVERAL = np.array([[1, 0, 1], [0, 1, 0], [0, 0, 0], [1, 1, 1]], np.float32)


@pytest.mark.parametrize(
    ("loss", "target", "expected"),
    [
        # F.cross_entropy(…, weight=WEIGHTS, reduction="none"): of classes, of classes with label_smoothing=0.1, of
        # probabilities
        (SoftmaxCrossEntropy(), soft_target(LABELS, 3), [0.2710794246, 0.3635689712, 5.9735857766, 0.1221762603]),
        (SoftmaxCrossEntropy(), soft_target(LABELS, 3, 0.1), [0.5133672712, 0.6005392298, 5.6479463298, 0.5280898997]),
        (SoftmaxCrossEntropy(), MIXED, [1.3792667917, 0.3635689712, 3.5312899251, 0.1221762603]),
        (Focal(gamma=0.0), MIXED, [1.3792667917, 0.3635689712, 3.5312899251, 0.1221762603]),
        # F.binary_cross_entropy_with_logits(…, pos_weight=WEIGHTS, reduction="none").sum(1)
        (SigmoidCrossEntropy(), SEVERAL, [2.1082274307, 1.3115143697, 1.9936479886, 4.5081527281]),
        (SigmoidCrossEntropy(), MIXED, [2.3352522781, 1.3115143697, 3.6400421751, 1.3813632204]),
    ],
)
def test_weighted_losses_are_those_of_pytorch(loss, target, expected):
    np.testing.assert_allclose(Rebalance(weights=WEIGHTS)(loss, LOGITS, target), expected, rtol=1e-5)


def test_the_weights_of_the_focal_loss_are_its_alpha():
    p = np.exp(LOGITS) / np.exp(LOGITS).sum(-1, keepdims=True)
    p, weight = p[np.arange(4), LABELS], np.array(WEIGHTS)[LABELS]
    found = Rebalance(weights=WEIGHTS)(Focal(gamma=2.0), LOGITS, soft_target(LABELS, 3))
    np.testing.assert_allclose(found, -weight * (1 - p) ** 2 * np.log(p), rtol=1e-5)


def test_a_weighted_loss_is_finite_where_logits_are_far_apart():
    logits, target = np.array([[800.0, -800.0], [-800.0, 800.0]], np.float32), np.eye(2, dtype=np.float32)[[0, 0]]
    for loss in (SoftmaxCrossEntropy(), SigmoidCrossEntropy(), Focal()):
        rebalance = Rebalance(weights=(0.1, 9.0))
        value, gradient = jax.value_and_grad(lambda x, loss=loss, r=rebalance: r(loss, x, target).sum())(logits)
        assert np.isfinite(value)
        assert np.isfinite(gradient).all()


def test_balanced_weights_are_those_of_scikit_learn():
    labels = np.repeat([0, 1, 2], [50, 9, 1])
    expected = compute_class_weight("balanced", classes=np.arange(3), y=labels)
    np.testing.assert_allclose(balanced_weights(np.bincount(labels).astype(float), 1.0), expected, rtol=1e-12)


@pytest.mark.parametrize("power", [0.0, 0.5, 1.0])
def test_weights_follow_the_power_of_the_counts_and_their_mean_over_the_examples_is_one(power):
    counts = np.array([50.0, 9.0, 1.0])
    weights = balanced_weights(counts, power)
    assert (weights * counts).sum() / counts.sum() == pytest.approx(1)
    np.testing.assert_allclose(weights[1:] / weights[0], (counts[0] / counts[1:]) ** power, rtol=1e-12)


def test_balanced_positive_weights_give_both_answers_of_each_class_the_same_weight():
    counts = np.array([10.0, 50.0, 80.0])
    weights = balanced_positive_weights(counts, 100.0, 1.0)
    np.testing.assert_allclose(weights * counts, 100 - counts, rtol=1e-12)
    np.testing.assert_allclose(balanced_positive_weights(counts, 100.0, 0.5), np.sqrt(weights), rtol=1e-12)


def test_logit_adjustment_follows_equation_10():
    counts, tau = np.array([70.0, 20.0, 10.0]), 1.5
    prior = counts / counts.sum()
    scores = prior**tau * np.exp(LOGITS)
    expected = -np.log(scores[np.arange(4), LABELS] / scores.sum(1))
    rebalance = Rebalance(shift=tuple(logit_adjustment(counts, tau)))
    found = rebalance(SoftmaxCrossEntropy(), LOGITS, soft_target(LABELS, 3))
    np.testing.assert_allclose(found, expected, rtol=1e-5)
