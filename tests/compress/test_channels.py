"""Channels that belong together, which of them go, and what the network without them computes."""

import itertools
from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxnets import create_model
from jaxnets.compress.choose import TOLERANCE, Group, _alike, _Cost, choose
from jaxnets.compress.coupled import Coupling, Product, couple, widths_of
from jaxnets.compress.importance import importance, make_gates
from jaxnets.errors import UserError
from jaxnets.models.conv import plain_convolutions
from jaxnets.models.describe import size
from jaxnets.recipe.losses.cross_entropy import SoftmaxCrossEntropy
from jaxnets.recipe.recipe import Recipe
from jaxnets.train.step import make_prepare
from tests.tiny import FAMILIES, SEEN, live
from tests.train.test_step import PREPROCESS, batch_at, tiny

SHAPE = (SEEN.height, SEEN.width, SEEN.channels)


def network(family, dtype="float32", **fields):
    name, own = FAMILIES[family]
    return create_model(name, num_classes=5, dtype=dtype, preprocess=SEEN, **own, **fields)


@pytest.mark.parametrize(
    "family",
    [
        *("cifar", "efficientnet"),
        *(
            pytest.param(name, marks=pytest.mark.slow)
            for name in ("bottleneck", "gated", "resnet-d", "resnext", "preactivated")
        ),
    ],
)
def test_the_smaller_network_computes_what_the_whole_one_does_with_zeros_in_place_of_what_is_cut(enable_x64, family):
    whole = network(family, "float64")
    variables = jax.tree.map(lambda x: np.asarray(x, np.float64), live(whole, SEEN))
    coupling = couple(whole, variables, *SHAPE)
    assert coupling.multiply_adds(np.ones(coupling.count, bool)) == size(whole, *SHAPE).multiply_adds
    kept = choose(coupling, np.random.default_rng(1).uniform(size=coupling.count), 0.5)
    cut = coupling.cut(variables, kept)
    smaller = network(family, "float64", layer_widths=widths_of(cut))
    found = size(smaller, *SHAPE)
    assert found.multiply_adds == coupling.multiply_adds(kept)
    assert found.parameters == sum(x.size for x in jax.tree.leaves(cut["params"]))
    images = np.random.default_rng(0).normal(size=(2, *SHAPE))
    with plain_convolutions():
        apply = jax.jit(whole.apply)
        expected = apply(coupling.masked(variables, kept), images)
        np.testing.assert_allclose(jax.jit(smaller.apply)(cut, images), expected, rtol=1e-10, atol=1e-12)
        assert np.abs(apply(variables, images) - expected).max() > 0.1


def test_a_shortcut_ties_what_it_joins_and_nothing_else():
    """CIFAR's: padding ties the first channels of a stage to those of the stage before it."""
    model = network("cifar")
    coupling = couple(model, live(model, SEEN), *SHAPE)
    stem = coupling.axes[("params", "stem_conv", "kernel"), 3]
    end = coupling.axes[("params", "stage2_block2", "conv2", "kernel"), 3]
    np.testing.assert_array_equal(end[:8], stem)
    inner = coupling.axes[("params", "stage2_block2", "conv1", "kernel"), 3]
    assert not set(inner) & set(end)
    assert sorted(map(len, coupling.groups())) == [8, 8, 8, 16, 16]
    assert not coupling.prunable[coupling.axes[("params", "head", "kernel"), 1]].any()
    assert not coupling.prunable[coupling.axes[("params", "stem_conv", "kernel"), 2]].any()


@pytest.mark.parametrize("family", ["convnext", "vit"])
def test_what_norms_over_channels_is_refused(family):
    name, own = FAMILIES[family]
    model = create_model(name, num_classes=5, preprocess=SEEN, **own)
    with pytest.raises(UserError, match="cannot be cut"):
        couple(model, live(model, SEEN), *SHAPE)


def chain(*widths):
    """Returns a coupling of 1×1 convolutions of so many places, each of which has a group of its own."""
    starts = np.cumsum([0, *widths])
    numbers = [np.arange(a, b) for a, b in pairwise(starts)]
    axes = {(("params", str(i), "scale"), 0): own for i, own in enumerate(numbers)}
    products = tuple(Product(100, own, None) for own in numbers)
    return Coupling(count=starts[-1], axes=axes, products=products, prunable=np.ones(starts[-1], bool))


def test_what_is_kept_is_a_multiple_and_comes_near_to_the_share():
    coupling = chain(64, 64, 16)
    random = np.random.default_rng(0)
    for keep in (0.3, 0.5, 0.9, 1.0):
        kept = choose(coupling, random.uniform(size=coupling.count), keep)
        left = [int(kept[group].sum()) for group in coupling.groups()]
        assert [n % unit for n, unit in zip(left, (16, 16, 8), strict=True)] == [0, 0, 0]
        assert abs(sum(left) / 144 - keep) <= 4 / 144 + 0.01


def test_what_matters_least_goes_first_and_no_group_goes_whole():
    coupling = chain(64, 64)
    matters = np.concatenate([np.linspace(1e-6, 2e-6, 64), np.linspace(1, 2, 64)])
    kept = choose(coupling, matters, 0.5)
    np.testing.assert_array_equal(np.flatnonzero(kept[:64]), np.arange(48, 64))  # at least a unit stays
    assert kept[64:].sum() == 48


def stages(count, *sides):
    """Returns a coupling of stages of 3×3 convolutions, of 16, 32 and 64 channels, each with a group of its own."""
    widths = [width for width, _ in zip((16, 32, 64), sides, strict=True) for _ in range(count)]
    starts = np.cumsum([0, *widths])
    numbers = [np.arange(a, b) for a, b in pairwise(starts)]
    axes = {(("params", str(i), "scale"), 0): own for i, own in enumerate(numbers)}
    places = [9 * side**2 for side in sides for _ in range(count)]
    products = tuple(Product(n, a, b) for n, (a, b) in zip(places, pairwise([None, *numbers]), strict=False))
    return Coupling(count=starts[-1], axes=axes, products=products, prunable=np.ones(starts[-1], bool))


def test_a_layer_that_would_be_as_slow_keeps_its_channels_and_no_layer_becomes_much_thinner_than_others():
    coupling = stages(4, 28, 14, 7)
    kept = choose(coupling, np.ones(coupling.count), 0.5)
    left = [int(kept[group].sum()) for group in coupling.groups()]
    assert left[:4] == [16] * 4  # a vector, whether full or not
    assert all(n >= size / 2 for n, size in zip(left[4:], [32] * 4 + [64] * 4, strict=True))


@pytest.mark.parametrize("keep", [0.3, 0.4, 0.5, 0.6, 0.7, 0.8])
def test_of_few_units_the_combination_next_to_the_share_is_found(keep):
    """A network of groups of 8 to 64 channels, of which there are few combinations: against all of them."""
    model = network("efficientnet", "float32")
    coupling = couple(model, live(model, SEEN), *SHAPE)
    groups = [Group(group, np.zeros(len(group))) for group in coupling.groups()]
    cost, sizes = _Cost.of(coupling, groups), np.asarray([len(group.channels) for group in groups])
    whole = cost(sizes[None])[0]
    kept = choose(coupling, np.random.default_rng(0).uniform(size=coupling.count), keep)
    left = np.asarray([kept[group.channels].sum() for group in groups])
    share = _alike(cost, sizes, keep * whole) ** 2
    if cost(np.asarray([[group.least(share) for group in groups]]))[0] > 1.01 * keep * whole:
        share = 0.0
    every = [range(group.least(share), n + 1, group.unit) for group, n in zip(groups, sizes, strict=True)]
    best = np.abs(cost(np.asarray(list(itertools.product(*every)))) / whole - keep).min()
    assert abs(cost(left[None])[0] / whole - keep) <= max(best, TOLERANCE * keep) + 1e-9


def test_a_share_that_cannot_be_reached_is_refused_with_the_least_that_can():
    with pytest.raises(UserError, match=r"0\.25 of them are left"):
        choose(chain(64, 64), np.ones(128), 0.05)


@pytest.mark.slow
def test_importance_is_the_squared_derivative_by_a_gate_after_the_norm(enable_x64):
    """Against a difference quotient: the loss with the scale and the bias of one channel times 1 + ε."""
    model = tiny(jnp.float64)
    recipe = Recipe(loss=SoftmaxCrossEntropy(), optimizer=optax.sgd(0.1), schedule=lambda step: 0.1)
    random = np.random.default_rng(0)
    shape = (1, PREPROCESS.height, PREPROCESS.width, PREPROCESS.channels)
    variables = model.init(jax.random.key(0), jnp.zeros(shape), train=False)
    variables = jax.tree.map(lambda x: np.asarray(x + 0.1 * np.abs(random.normal(size=x.shape))), variables)
    coupling = couple(model, variables, *shape[1:])
    batches = [batch_at(0), batch_at(1)]
    with plain_convolutions():
        gates = jax.jit(make_gates(model, PREPROCESS, recipe, seed=0))
        found = importance(coupling, variables, gates, batches)
    prepare = make_prepare(recipe, model.num_classes, 0)

    @jax.jit
    def loss(variables, batch, number):
        examples = prepare(batch, number)
        with plain_convolutions():
            logits = model.apply(variables, PREPROCESS.normalise(examples.image, jnp.float64), train=False)
        return recipe.training_loss(logits, examples.target).mean()

    for channel in [group[0] for group in coupling.groups()][:3]:
        expected = []
        for number, batch in enumerate(batches):
            both = []
            for epsilon in (1e-4, -1e-4):
                factor = np.ones(coupling.count)
                factor[channel] += epsilon

                def scaled(path, x, factor=factor):
                    names = tuple(part.key for part in path)
                    norm = names[-1] in ("scale", "bias") and ((*names[:-1], "scale"), 0) in coupling.axes
                    return x * factor[coupling.axes[names, 0]] if norm else x

                both.append(float(loss(jax.tree_util.tree_map_with_path(scaled, variables), batch, np.int32(number))))
            expected.append(((both[0] - both[1]) / 2e-4) ** 2)
        np.testing.assert_allclose(found[channel], np.mean(expected), rtol=1e-3, atol=1e-12)
