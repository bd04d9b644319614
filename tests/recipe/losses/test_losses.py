import dataclasses

import jax
import numpy as np
import pytest

from jaxnets.config import resolve
from jaxnets.recipe.losses.cross_entropy import SigmoidCrossEntropy, SoftmaxCrossEntropy
from jaxnets.recipe.losses.focal import Focal
from jaxnets.recipe.losses.loss import soft_target
from jaxnets.recipe.losses.table import LossConfig, find_loss

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
