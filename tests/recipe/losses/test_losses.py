import dataclasses

import jax
import numpy as np
import pytest

from jaxnets.config import resolve
from jaxnets.errors import UserError
from jaxnets.recipe.losses.cross_entropy import SigmoidCrossEntropy, SoftmaxCrossEntropy
from jaxnets.recipe.losses.focal import Focal
from jaxnets.recipe.losses.loss import soft_target
from jaxnets.recipe.losses.table import LossConfig, activation_of, check_threshold, find_loss

LOGITS = np.random.default_rng(0).normal(size=(6, 4)).astype(np.float32)
LABELS = np.array([0, 1, 2, 3, 0, 1], np.int32)
P = np.exp(LOGITS) / np.exp(LOGITS).sum(-1, keepdims=True)
LOSSES = [f.name for f in dataclasses.fields(LossConfig) if dataclasses.is_dataclass(getattr(LossConfig(), f.name))]


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.9])
def test_softmax_cross_entropy_follows_its_definition(smoothing):
    target = (1 - smoothing) * np.eye(4)[LABELS] + smoothing / 4
    np.testing.assert_allclose(soft_target(LABELS, 4, smoothing), target, rtol=1e-6)
    found = SoftmaxCrossEntropy()(LOGITS, soft_target(LABELS, 4, smoothing))
    np.testing.assert_allclose(found, -(target * np.log(P)).sum(-1), rtol=1e-5)


def test_several_labels_are_smoothed_each_towards_one_half():
    several = np.array([[1.0, 0.0, 1.0]])
    np.testing.assert_allclose(soft_target(several, 3, 0.2), [[0.9, 0.1, 0.9]], rtol=1e-6)


@pytest.mark.parametrize("over_classes", ["sum", "mean"])
def test_sigmoid_cross_entropy_follows_its_definition(over_classes):
    target = np.array([[1, 0, 0.5, 1]] * 6, np.float32)
    p = 1 / (1 + np.exp(-LOGITS))
    each = -(target * np.log(p) + (1 - target) * np.log(1 - p))
    expected = getattr(each, over_classes)(-1)
    np.testing.assert_allclose(SigmoidCrossEntropy(over_classes=over_classes)(LOGITS, target), expected, rtol=1e-5)


def test_the_focal_loss_follows_equation_4():
    p = P[np.arange(6), LABELS]
    found = Focal(gamma=2.0)(LOGITS, soft_target(LABELS, 4))
    np.testing.assert_allclose(found, -((1 - p) ** 2) * np.log(p), rtol=1e-5)


def test_the_focal_loss_without_gamma_is_the_cross_entropy():
    target = soft_target(LABELS, 4, 0.1)
    np.testing.assert_allclose(Focal(gamma=0.0)(LOGITS, target), SoftmaxCrossEntropy()(LOGITS, target), rtol=1e-6)


@pytest.mark.parametrize("name", LOSSES)
def test_every_loss_is_finite_where_logits_are_far_apart(name):
    loss = find_loss(resolve({"loss": {"name": name}}).loss)
    logits, target = np.array([[80.0, -80.0], [-80.0, 80.0]], np.float32), soft_target(np.zeros(2, np.int32), 2)
    value, gradient = jax.value_and_grad(lambda x: loss(x, target).sum())(logits)
    assert np.isfinite(value)
    assert np.isfinite(gradient).all()
    np.testing.assert_allclose(loss(logits, target)[0], 0, atol=1e-6)
    assert loss.activation in ("softmax", "sigmoid")


def test_a_loss_gets_the_parameters_of_its_group():
    spec = resolve({"loss": {"name": "focal", "focal": {"gamma": 3.0}}}).loss
    assert find_loss(spec) == Focal(gamma=3.0)


_DRAWN = np.random.default_rng(7)
TIMM_LOGITS = _DRAWN.normal(0, 3, (60, 6)).astype(np.float32)
TIMM_DENSE = _DRAWN.dirichlet(np.ones(6) * 0.5, 60).astype(np.float32)
TIMM_LABELS = np.arange(60, dtype=np.int32) % 6


# timm 1.0.31's BinaryCrossEntropy of these logits, in float64.
@pytest.mark.parametrize(
    ("smoothing", "threshold", "over_classes", "expected"),
    [
        (0.0, None, "mean", 1.14444856),
        (0.1, None, "mean", 1.15025075),
        (0.1, None, "sum", 6.90150452),
        (0.1, 0.2, "mean", 1.14444856),
        ("dense", None, "sum", 7.24329151),
        ("dense", 0.2, "mean", 1.18244966),
        ("dense", 0.0, "mean", 1.45980162),
    ],
)
def test_sigmoid_cross_entropy_is_timm_s(smoothing, threshold, over_classes, expected):
    target = TIMM_DENSE if smoothing == "dense" else soft_target(TIMM_LABELS, 6, smoothing)
    loss = SigmoidCrossEntropy(over_classes=over_classes, threshold=threshold)
    np.testing.assert_allclose(loss(TIMM_LOGITS, target).mean(), expected, rtol=1e-6)


def test_a_threshold_makes_both_partners_of_a_mix_right():
    target = np.array([[0.7, 0.3, 0.0], [0.85, 0.0, 0.15]], np.float32)
    found = SigmoidCrossEntropy(threshold=0.2)(LOGITS[:2, :3], target)
    right = np.array([[1, 1, 0], [1, 0, 0]], np.float32)
    np.testing.assert_allclose(found, SigmoidCrossEntropy()(LOGITS[:2, :3], right), rtol=1e-6)


@pytest.mark.parametrize(("threshold", "smoothing"), [(0.0, 0.1), (0.02, 0.1), (0.93, 0.1), (0.96, 0.06)])
def test_a_threshold_that_makes_all_classes_alike_is_refused(threshold, smoothing):
    loss = {
        "name": "sigmoid_cross_entropy",
        "label_smoothing": smoothing,
        "sigmoid_cross_entropy": {"threshold": threshold},
    }
    with pytest.raises(UserError, match=r"threshold .* makes all classes of an image (right|wrong)"):
        check_threshold(resolve({"loss": loss}).loss, 4)


@pytest.mark.parametrize(("threshold", "smoothing"), [(0.0, 0.0), (0.2, 0.1), (0.5, 0.4)])
def test_a_threshold_that_tells_classes_apart_is_not(threshold, smoothing):
    loss = {
        "name": "sigmoid_cross_entropy",
        "label_smoothing": smoothing,
        "sigmoid_cross_entropy": {"threshold": threshold},
    }
    spec = resolve({"loss": loss}).loss
    check_threshold(spec, 4)
    zero = np.zeros((1, 4), np.float32)  # a probability of one half: the gradient's sign says what is right
    gradient = jax.grad(lambda z: find_loss(spec)(z, soft_target(np.array([2], np.int32), 4, smoothing)).sum())(zero)
    np.testing.assert_array_equal(gradient[0] < 0, [False, False, True, False])


def test_where_one_class_is_right_the_answer_is_the_chance_that_it_is_the_only_one():
    """The softmax, which is what independent yes and no of each class come to, given that one is right."""
    yes = 1 / (1 + np.exp(-LOGITS))
    only = np.stack([yes[:, i] * np.prod(np.delete(1 - yes, i, 1), 1) for i in range(4)], 1)
    np.testing.assert_allclose(P, only / only.sum(-1, keepdims=True), rtol=1e-5)
    assert activation_of(SigmoidCrossEntropy(), several_labels=False) == "softmax"
    assert activation_of(SigmoidCrossEntropy(), several_labels=True) == "sigmoid"
