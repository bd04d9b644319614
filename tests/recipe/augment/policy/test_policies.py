from dataclasses import fields, is_dataclass, replace
from functools import partial

import jax
import numpy as np
import pytest

from jaxnets.config import resolve
from jaxnets.config_check import without_effect
from jaxnets.errors import UserError
from jaxnets.preprocess import Preprocess
from jaxnets.recipe.augment.op import augment, keys_of
from jaxnets.recipe.augment.policy import sub_policies, tensorflow, timm, torchvision
from jaxnets.recipe.augment.policy.layer import Kind
from jaxnets.recipe.augment.policy.table import PolicyConfig, find_policy
from jaxnets.recipe.augment.policy.tensorflow import TensorflowRandAugment
from jaxnets.recipe.augment.policy.timm import AutoAugmentV0, TimmRandAugment
from jaxnets.recipe.augment.policy.torchvision import (
    AutoAugmentCifar10,
    AutoAugmentImagenet,
    TorchvisionRandAugment,
    TrivialAugmentWide,
)
from jaxnets.recipe.augment.table import cut_and_ops
from jaxnets.train.mesh import over_data

COUNT = 20_000
SEEN = Preprocess(height=12, width=10, channels=3, mean=(0.5, 0.4, 0.3), std=(0.2,) * 3)
NAMES = [entry.name for entry in fields(PolicyConfig) if is_dataclass(getattr(PolicyConfig(), entry.name))]
IMAGES = np.random.default_rng(0).integers(0, 256, (24, 12, 10, 3), np.uint8)
SIGNED = [Kind.SHEAR_X, Kind.SHEAR_Y, Kind.TRANSLATE_X, Kind.TRANSLATE_Y, Kind.ROTATE]
ENHANCING = [Kind.BRIGHTNESS, Kind.COLOR, Kind.CONTRAST, Kind.SHARPNESS]


@partial(jax.jit, static_argnums=(0, 1, 2))
def _drawn(policy, height, width, index):
    return policy.draw(keys_of(0, seed=0, epoch=index * 0, index=index), height, width)


def drawn(policy, height: int = 200, width: int = 100) -> tuple[np.ndarray, np.ndarray]:
    """Returns ops and amounts `[examples, layers]` of many examples."""
    layers = _drawn(policy, height, width, np.arange(COUNT, dtype=np.int32))
    return np.stack([each.kind for each in layers], 1), np.stack([each.amount for each in layers], 1)


def shares(kind: np.ndarray) -> np.ndarray:
    return np.bincount(kind, minlength=len(Kind)) / len(kind)


def close(found, expected, deviations: float = 5.0) -> bool:
    """Tells whether shares of COUNT draws are within so many standard deviations."""
    expected = np.asarray(expected)
    return bool(np.all(np.abs(found - expected) <= deviations * np.sqrt(expected * (1 - expected) / COUNT) + 1e-9))


@pytest.mark.parametrize(
    ("policy", "ops", "probability"),
    [
        (TimmRandAugment(), timm.OPS, 0.5),
        (TimmRandAugment(probability=1.0, layers=3), timm.OPS, 1.0),
        (TorchvisionRandAugment(), torchvision.OPS, 1.0),
        (TensorflowRandAugment(), tensorflow.OPS, 1.0),
        (TrivialAugmentWide(), torchvision.OPS, 1.0),
    ],
    ids=lambda value: type(value).__name__,
)
def test_every_op_is_drawn_equally_often_in_each_layer(policy, ops, probability):
    kind, _ = drawn(policy)
    assert len(ops) == len(set(ops)) == {timm: 15, torchvision: 14, tensorflow: 16}.get(_module(ops), 0)
    expected = np.isin(np.arange(len(Kind)), ops) * probability / len(ops)
    expected[Kind.IDENTITY] += 1 - probability
    for layer in kind.T:
        assert close(shares(layer), expected)
    if kind.shape[1] > 1:  # the layers draw apart
        both = np.mean((kind[:, 0] == Kind.ROTATE) & (kind[:, 1] == Kind.ROTATE))
        assert close(both, expected[Kind.ROTATE] ** 2)


def _module(ops):
    return next(module for module in (timm, torchvision, tensorflow) if module.OPS is ops)


@pytest.mark.parametrize(
    ("policy", "pairs"),
    [
        (AutoAugmentV0(), sub_policies.V0),
        (AutoAugmentImagenet(), sub_policies.IMAGENET),
        (AutoAugmentCifar10(), sub_policies.CIFAR10),
    ],
    ids=lambda value: type(value).__name__,
)
def test_pairs_of_ops_are_drawn_equally_often_and_each_op_by_its_probability(policy, pairs):
    kind, _ = drawn(policy)
    for layer in (0, 1):
        expected = np.zeros(len(Kind))
        np.add.at(expected, pairs.kind[:, layer], pairs.probability[:, layer] / 25)
        expected[Kind.IDENTITY] = 1 - expected.sum()
        assert close(shares(kind[:, layer]), expected)
    # Both ops of a pair: where the first is of one pair alone, the second is that pair's or none.
    first = [op for op in np.unique(pairs.kind[:, 0]) if np.sum(pairs.kind[:, 0] == op) == 1]
    for op in first:
        row = np.flatnonzero(pairs.kind[:, 0] == op)[0]
        assert set(kind[kind[:, 0] == op, 1]) <= {pairs.kind[row, 1], Kind.IDENTITY}


# Σ row · probability and Σ row · magnitude, rows from 1, of the first and second ops in timm 1.0.31's v0 and original
# and in torchvision 0.29.1's CIFAR10.
SUMS = [
    (sub_policies.V0, (203.4, 190.6), (1522, 1665)),
    (sub_policies.IMAGENET, (183.0, 235.2), (1830, 1848)),
    (sub_policies.CIFAR10, (188.4, 174.6), (1224, 979)),
]


@pytest.mark.parametrize(("pairs", "probabilities", "magnitudes"), SUMS, ids=["v0", "imagenet", "cifar10"])
def test_a_policy_has_the_pairs_that_were_published(pairs, probabilities, magnitudes):
    rows = np.arange(1, 26)
    np.testing.assert_allclose(rows @ pairs.probability, probabilities, rtol=1e-5)
    np.testing.assert_array_equal(rows @ pairs.magnitude, magnitudes)


def test_timms_magnitudes_scatter_about_the_one_that_is_set():
    kind, amount = drawn(TimmRandAugment(probability=1.0, magnitude=6.0))
    degrees = np.abs(amount[kind == Kind.ROTATE]) / 3
    assert degrees.mean() == pytest.approx(6.0, abs=0.05)
    assert degrees.std() == pytest.approx(0.5, abs=0.05)
    kind, amount = drawn(TimmRandAugment(probability=1.0, magnitude=9.9, magnitude_std=2.0))
    degrees = np.abs(amount[kind == Kind.ROTATE]) / 3
    assert degrees.max() == pytest.approx(10.0)  # cut, and not drawn again
    assert np.mean(degrees > 9.999) == pytest.approx(0.48, abs=0.06)
    kind, amount = drawn(TimmRandAugment(probability=1.0, magnitude=8.0, magnitude_std=101.0))
    assert np.abs(amount[kind == Kind.ROTATE]).mean() == pytest.approx(12.0, abs=0.8)  # evenly from 0° to 24°


# By timm 1.0.31's LEVEL_TO_ARG, torchvision 0.29.1's _augmentation_space and automl's level_to_arg, at the magnitudes
# below, of images of 200 rows and 100 columns.
TIMM = {
    Kind.ROTATE: 27, Kind.POSTERIZE: 1, Kind.SOLARIZE: 26, Kind.SOLARIZE_ADD: 99, Kind.SHEAR_X: 0.27,
    Kind.SHEAR_Y: 0.27, Kind.TRANSLATE_X: 40.5, Kind.TRANSLATE_Y: 81,
    **dict.fromkeys(ENHANCING, 0.81),  # from 1
}  # fmt: skip
NOT_INCREASING = {**TIMM, Kind.POSTERIZE: 3, Kind.SOLARIZE: 230, **dict.fromkeys(ENHANCING, 0.72)}
TORCHVISION = {
    Kind.ROTATE: 9, Kind.POSTERIZE: 7, Kind.SOLARIZE: 178.5, Kind.SHEAR_X: 0.09, Kind.SHEAR_Y: 0.09,
    Kind.TRANSLATE_X: 13, Kind.TRANSLATE_Y: 27, **dict.fromkeys(ENHANCING, 0.27),
}  # fmt: skip
TENSORFLOW = {
    Kind.ROTATE: 84, Kind.POSTERIZE: 11, Kind.SOLARIZE: 716, Kind.SOLARIZE_ADD: 308, Kind.SHEAR_X: 0.84,
    Kind.SHEAR_Y: 0.84, Kind.TRANSLATE_X: 280, Kind.TRANSLATE_Y: 280, Kind.CUTOUT: 112,
    **dict.fromkeys(ENHANCING, 5.14),  # itself
}  # fmt: skip
EXACT = {"magnitude_std": 0.0, "probability": 1.0}


@pytest.mark.parametrize(
    ("policy", "expected", "signed"),
    [
        (TimmRandAugment(**EXACT), TIMM, [*SIGNED, *ENHANCING]),
        (TimmRandAugment(increasing=False, **EXACT), NOT_INCREASING, SIGNED),
        (TorchvisionRandAugment(), TORCHVISION, [*SIGNED, *ENHANCING]),
        (TensorflowRandAugment(magnitude=28.0), TENSORFLOW, SIGNED),
    ],
    ids=["timm", "timm not increasing", "torchvision", "tensorflow"],
)
def test_strengths_and_signs_are_the_librarys(policy, expected, signed):
    kind, amount = drawn(policy)
    for op in np.unique(kind):
        found = amount[kind == op]
        if op in ENHANCING and not isinstance(policy, TensorflowRandAugment):
            found = found - 1
        value = expected.get(Kind(op), 0.0)
        np.testing.assert_allclose(np.abs(found), value, rtol=1e-5, atol=1e-6)
        if op in signed:
            assert np.mean(found < 0) == pytest.approx(0.5, abs=0.06)
        else:
            assert np.all(found >= 0)


def test_trivial_augments_strengths_are_even_over_the_whole_range():
    kind, amount = drawn(TrivialAugmentWide())
    kind, amount = kind[:, 0], amount[:, 0]
    for op, most in ((Kind.ROTATE, 135), (Kind.SHEAR_X, 0.99), (Kind.TRANSLATE_Y, 32)):
        found = np.abs(amount[kind == op])
        assert found.max() == pytest.approx(most)
        assert found.mean() == pytest.approx(most / 2, rel=0.08)
        assert len(np.unique(found)) == 31
    assert set(amount[kind == Kind.POSTERIZE]) == set(range(2, 9))
    assert amount[kind == Kind.SOLARIZE].min() == 0
    bright = amount[kind == Kind.BRIGHTNESS]
    assert (bright.min(), bright.max()) == pytest.approx((0.01, 1.99))


def test_auto_augments_top_magnitude_is_torchvisions_whole_range_and_nine_tenths_of_timms():
    for policy, degrees in ((AutoAugmentImagenet(), 30.0), (AutoAugmentV0(), 27.0)):
        kind, amount = drawn(policy)
        assert np.abs(amount[kind == Kind.ROTATE]).max() == pytest.approx(degrees)


def _spec(name: str) -> PolicyConfig:
    return replace(PolicyConfig(), name=name)


@jax.jit
def _layers_of_all(index, epoch):
    keys = keys_of(0, seed=0, epoch=index * 0 + epoch, index=index)
    return {name: getattr(PolicyConfig(), name).draw(keys, 12, 10) for name in NAMES}


def test_what_every_policy_draws_is_a_function_of_epoch_and_index_whatever_the_batch():
    index = np.arange(64, dtype=np.int32)
    order = np.random.default_rng(1).permutation(64)
    whole, permuted = _layers_of_all(index, 1), _layers_of_all(index[order], 1)
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(np.asarray(a)[order], b), whole, permuted)
    for other in (_layers_of_all(index, 2), _layers_of_all(index + 64, 1)):
        for name in NAMES:
            assert not np.array_equal(other[name][0].kind, whole[name][0].kind)


@partial(jax.jit, static_argnames="seed")
def changed(images, index, epoch, seed=0):
    ops = (find_policy(_spec("trivial_augment_wide"), SEEN),)
    return augment(ops, images, seed=seed, epoch=index * 0 + epoch, index=index)


def test_an_image_becomes_what_seed_epoch_and_index_say_whatever_its_batch():
    index = np.arange(24, dtype=np.int32)
    whole = np.asarray(changed(IMAGES, index, 1))
    order = np.random.default_rng(1).permutation(24)
    np.testing.assert_array_equal(changed(IMAGES[order], index[order], 1), whole[order])
    assert not np.array_equal(changed(IMAGES, index, 2), whole)
    assert not np.array_equal(changed(IMAGES, index, 1, seed=1), whole)
    assert whole.dtype == np.uint8


def test_a_policy_costs_the_same_whatever_it_draws():
    index = np.arange(24, dtype=np.int32)
    program = changed.lower(IMAGES, index, 1).compile().as_text()
    assert "conditional(" not in program  # no branch is chosen, in a program that knows no draw


def test_a_batch_over_eight_devices_becomes_what_it_does_on_one(eight_devices):
    index = np.arange(24, dtype=np.int32)
    whole = changed(IMAGES, index, 1)
    shared = changed(*jax.device_put((IMAGES, index), over_data(eight_devices)), 1)
    np.testing.assert_array_equal(shared, whole)


def test_a_config_names_a_policy_between_its_other_ops():
    spec = {"flip": {"horizontal": 0.5}, "policy": {"name": "timm_rand_augment"}, "posterize": {"probability": 0.5}}
    _, ops = cut_and_ops(resolve({"augment": spec}).augment, SEEN, canvas_is_input=True)
    assert [type(op).__name__ for op in ops] == ["Flip", "DrawnOps", "Posterize"]
    assert ops[1].fill == (128, 102, 76)  # the mean colour


def test_parameters_of_a_policy_that_is_not_named_are_without_effect():
    spec = {"policy": {"name": "trivial_augment_wide", "timm_rand_augment": {"layers": 3}}}
    assert without_effect(resolve({"augment": spec})) == [
        "config.augment.policy.timm_rand_augment.layers has no effect: augment.policy.name is trivial_augment_wide"
    ]
    _, ops = cut_and_ops(resolve({"augment": {"policy": {"timm_rand_augment": {"layers": 3}}}}).augment, SEEN,
                         canvas_is_input=True)  # fmt: skip
    assert ops == ()


@pytest.mark.parametrize(
    ("policy", "message"),
    [
        ({"name": "randaugment"}, "must be one of timm_rand_augment"),
        ({"timm_rand_augment": {"layers": 0}}, "layers must be at least 1 and at most 8"),
        ({"timm_rand_augment": {"probability": 2.0}}, "probability must be at least 0 and at most 1"),
        ({"timm_rand_augment": {"magnitude": -1.0}}, "magnitude must be at least 0"),
        ({"timm_rand_augment": {"filter": "bicubic"}}, "filter must be one of nearest, bilinear"),
        ({"trivial_augment_wide": {"bins": 1}}, "bins must be at least 2"),
    ],
)
def test_a_policy_that_cannot_be_is_refused(policy, message):
    with pytest.raises(UserError, match=message):
        resolve({"augment": {"policy": policy}})


def test_a_magnitude_beyond_the_bins_is_refused():
    spec = replace(
        PolicyConfig(), name="torchvision_rand_augment", torchvision_rand_augment=TorchvisionRandAugment(magnitude=31)
    )
    with pytest.raises(UserError, match="magnitude 31 is none of its bins, which count from 0 to 30"):
        find_policy(spec, SEEN)
