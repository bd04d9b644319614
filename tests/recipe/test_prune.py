"""Magnitude pruning: its schedule, what it takes, and that what is zero stays zero."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnets.config import resolve
from jaxnets.config_check import without_effect
from jaxnets.errors import UserError
from jaxnets.models.family import Structure
from jaxnets.recipe.compress import CompressConfig
from jaxnets.recipe.ema import EmaConfig, make_average
from jaxnets.recipe.losses.cross_entropy import SoftmaxCrossEntropy
from jaxnets.recipe.optimizer.table import OptimizerConfig, make_optimizer
from jaxnets.recipe.promotion import promoting
from jaxnets.recipe.prune import Pruning, adaptive, make_pruning, uniform
from jaxnets.recipe.recipe import Recipe
from jaxnets.train.step import init_state, make_train_step
from tests.train.test_step import PREPROCESS, batch_at, tiny

PRUNING = Pruning(keep=0.2, end=6, every=2, dense=frozenset({"stem_conv", "head"}))


def test_sparsity_follows_the_cubic_of_zhu_and_gupta():
    """Equation 1 with s_i = 0, t_0 = 0, nΔt = 6, and the target 0.8."""
    found = [PRUNING.sparsity(done) for done in (0, 2, 4, 6, 9)]
    np.testing.assert_allclose(found, [0, 0.8 * (1 - (4 / 6) ** 3), 0.8 * (1 - (2 / 6) ** 3), 0.8, 0.8], rtol=1e-12)


def test_the_scores_of_lamp_are_those_of_its_equation():
    """Lee et al. 2021, equation 3, written out; the paper's score leaves out what is smaller."""
    weights = np.asarray([-2.0, 1.0, 0.5, -0.1, 0.0], np.float32)
    expected = [w**2 / sum(v**2 for v in weights if abs(v) >= abs(w)) for w in weights]
    np.testing.assert_allclose(adaptive(weights**2), expected, rtol=1e-6)
    assert not adaptive(np.zeros(3, np.float32)).any()


def test_uniform_takes_the_same_share_of_each_layer():
    found = [uniform(np.asarray(x, np.float32)) for x in ([9, 4, 1, 0], [900, 800, 700, 600])]
    np.testing.assert_allclose(found, 2 * [[0.875, 0.625, 0.375, 0.125]])


def layers():
    random = np.random.default_rng(0)
    shapes = {"stem_conv": (3, 3, 3, 8), "a": (3, 3, 8, 8), "depthwise": (3, 3, 1, 8), "head": (8, 4)}
    params = {name: {"kernel": jnp.asarray(random.normal(size=shape))} for name, shape in shapes.items()}
    params["a"]["bias"] = jnp.zeros(8)
    params["b"] = {"kernel": jnp.asarray(100 * random.normal(size=(8, 16)))}
    return params


@pytest.mark.parametrize("layers_", ["adaptive", "uniform"])
def test_as_many_weights_are_taken_as_are_due_and_no_others(enable_x64, layers_):
    params = layers()
    pruned = jax.jit(replace(PRUNING, layers=layers_))(params, jnp.int32(6))
    of_a, of_b = (int((pruned[name]["kernel"] == 0).sum()) for name in ("a", "b"))
    assert of_a + of_b == round(0.8 * (576 + 128))
    if layers_ == "uniform":
        assert (of_a, of_b) == (461, 102)  # 0.8 of each, although the weights of one are a hundred times larger
    for name in ("a", "b"):  # the smallest of the layer
        before, after = params[name]["kernel"], pruned[name]["kernel"]
        gone = jnp.abs(before)[after == 0]
        assert gone.max() < jnp.abs(after[after != 0]).min()
        np.testing.assert_array_equal(after[after != 0], before[after != 0])
    for name in ("stem_conv", "depthwise", "head"):
        np.testing.assert_array_equal(pruned[name]["kernel"], params[name]["kernel"])


def test_nothing_is_taken_between_two_prunings_nor_after_the_last():
    params, pruning = layers(), jax.jit(PRUNING)
    for done in (1, 3, 7, 8):
        pruned = pruning(params, jnp.int32(done))
        assert (pruned["a"]["kernel"] == params["a"]["kernel"]).all()
    first = pruning(params, jnp.int32(2))
    assert PRUNING.zeros(first)[0] == round(PRUNING.sparsity(2) * 704)


def test_pruned_weights_stay_zero_in_the_parameters_and_in_their_average_whatever_momentum_and_decay(enable_x64):
    model = tiny(jnp.float64)
    pruning = Pruning(keep=0.3, end=2, every=1, dense=frozenset({"stem_conv", "head"}))
    recipe = Recipe(
        loss=SoftmaxCrossEntropy(),
        optimizer=make_optimizer(OptimizerConfig(name="adamw", weight_decay=0.1), promoting(lambda step: 0.1)),
        schedule=lambda step: 0.1,
        average=make_average(EmaConfig(decay=0.9), batch_size=8, epochs=1.0, warmup_steps=0),
        pruning=pruning,
    )
    state = init_state(model, PREPROCESS, recipe, 0)
    step = jax.jit(make_train_step(model, PREPROCESS, recipe, seed=0, metrics=(pruning.metric,)))
    shares = []
    for number in range(4):
        before = state
        state, sums = step(state, batch_at(number))
        shares.append(float(sums["sparsity"]))
        zeros, total = pruning.zeros(state.params)
        assert zeros == round(pruning.sparsity(number + 1) * total)
        assert pruning.zeros(state.ema["params"])[0] >= zeros
        for path, x in pruning.weights(state.params).items():
            assert not np.asarray(pruning.weights(state.ema["params"])[path])[np.asarray(x) == 0].any()
            was = np.asarray(pruning.weights(before.params)[path])
            assert not np.asarray(x)[was == 0].any()
    np.testing.assert_allclose(shares, [pruning.sparsity(number) for number in range(4)], atol=0.001)


STRUCTURE = Structure(stem=("stem_conv",), stages={"stage1": (("a",),)}, head="head", fixed=("white",))


def test_a_ramp_has_25_prunings_unless_the_config_says_how_often():
    made = make_pruning(CompressConfig(method="magnitude", keep=0.1, ramp=0.5), STRUCTURE, 1000)
    assert (made.end, made.every, made.dense) == (500, 20, {"stem_conv", "head", "white"})
    assert make_pruning(CompressConfig(method="magnitude", every_steps=100, ramp=1.0), STRUCTURE, 7).every == 7
    assert make_pruning(CompressConfig(method="channels"), STRUCTURE, 1000) is None


def test_a_network_without_kernels_to_prune_is_refused():
    with pytest.raises(UserError, match="nothing to prune"):
        PRUNING({"head": {"kernel": jnp.ones((2, 2))}}, jnp.int32(0))


@pytest.mark.parametrize(
    ("changed", "match"),
    [
        ({"keep": 0.0}, "compress.keep.*above 0"),
        ({"keep": 1.5}, "compress.keep.*at most 1"),
        ({"method": "lottery"}, "compress.method"),
        ({"ramp": 0.0}, "compress.ramp"),
    ],
)
def test_what_a_config_may_not_say_of_it_is_refused(changed, match):
    with pytest.raises(UserError, match=match):
        resolve({"compress": {"method": "magnitude", **changed}})


@pytest.mark.parametrize("other", [{"freeze": {"before": "head"}}, {"finetune": {"method": "head"}}])
def test_pruning_beside_what_contradicts_it_is_refused(other):
    with pytest.raises(UserError, match="magnitude"):
        resolve({"compress": {"method": "magnitude"}, **other})


def test_keys_that_do_nothing_without_a_method_or_beside_another_are_named():
    assert without_effect(resolve({"compress": {"keep": 0.3}})) == [
        "config.compress.keep has no effect: config.compress.method is not set"
    ]
    (said,) = without_effect(resolve({"compress": {"method": "channels", "ramp": 0.3}}))
    assert said == "config.compress.ramp has no effect: config.compress.method is not magnitude"
    (said,) = without_effect(resolve({"compress": {"method": "qat", "keep": 0.3}}))
    assert said == "config.compress.keep has no effect: config.compress.method is qat"
