"""A training step of a network that is frozen in part."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnets.config import resolve
from jaxnets.models.registry import family_of
from jaxnets.recipe.freeze import Frozen, split
from jaxnets.recipe.losses.loss import soft_target
from jaxnets.recipe.optimizer.table import make_optimizer
from tests.train.test_step import PREPROCESS, assert_close, averaging, batch_at, run_on, setup, tiny

BEFORE_STAGE2 = frozenset({"stem_conv", "stem_norm", "stage1_block1"})
BEFORE_HEAD = BEFORE_STAGE2 | {"stage2_block1"}


def optimizer(**spec):
    return make_optimizer(resolve({"optimizer": {"weight_decay": 0.1, **spec}}).optimizer, lambda step: 0.1)


def frozen(layers=BEFORE_STAGE2, policy="frozen", **recipe):
    return {"frozen": Frozen(layers=layers, batch_norm=policy), "optimizer": optimizer(), "ops": (), **recipe}


def paths(tree):
    return {tuple(key.key for key in path): x for path, x in jax.tree_util.tree_leaves_with_path(tree)}


@pytest.mark.parametrize("policy", ["frozen", "statistics", "train"])
def test_what_is_frozen_stays_to_the_bit_and_all_else_changes(one_device, policy):
    """In the averaged weights too, and over micro-batches, a third of whose sum is not to the bit what was added up."""
    recipe = frozen(policy=policy, average=averaging(0.9))
    fields = {"recipe": recipe, "micro_batches": 3, "norm_group_size": 4}
    _, start = setup(**fields)
    after, _ = run_on(one_device, 3, size=24, **fields)
    for first, last in ((start.variables, after.variables), (start.ema, after.ema)):
        kept = paths(split(recipe["frozen"], first)[1])
        assert any(path[0] == "params" for path in kept)
        assert any(path[0] == "batch_stats" for path in kept) == (policy == "frozen")
        now = paths(last)
        for path, x in paths(first).items():
            assert np.array_equal(now[path], x) == (path in kept), path


def test_the_optimizer_knows_only_what_trains():
    for layers in (BEFORE_STAGE2, BEFORE_HEAD):
        recipe = frozen(layers, optimizer=optimizer(name="adamw"))
        state = setup(recipe=recipe)[1]
        trained = split(recipe["frozen"], state.variables)[0]["params"]
        moments = [x for x in jax.tree.leaves(state.opt_state) if x.ndim]
        assert sum(x.size for x in moments) == 2 * sum(x.size for x in jax.tree.leaves(trained))


def test_the_compiler_counts_the_less_the_more_is_frozen():
    """Of a step on 64 images: operations, and bytes of what it keeps beside its state."""
    flops, kept = [], []
    for recipe in (frozen() | {"frozen": None}, frozen(), frozen(BEFORE_HEAD)):
        step, state = setup(recipe=recipe)
        compiled = jax.jit(step, donate_argnums=0).lower(state, batch_at(0, 64)).compile()
        flops.append(compiled.cost_analysis()["flops"])
        kept.append(compiled.memory_analysis().temp_size_in_bytes)
    assert flops[1] < 0.7 * flops[0]
    assert flops[2] < 0.8 * flops[1]
    assert kept[1] < 0.7 * kept[0]
    assert kept[2] < 0.85 * kept[1]


def test_the_head_alone_learns_by_its_gradient_on_the_features_of_evaluation(one_device):
    recipe = frozen(BEFORE_HEAD, optimizer=optimizer(momentum=0.0, weight_decay=0.0))
    _, start = setup(recipe=recipe)
    after, _ = run_on(one_device, 1, recipe=recipe)
    batch, model = batch_at(0), tiny()
    x = model.apply(start.variables, PREPROCESS.normalise(batch.image, jnp.float32), train=False, method="embed")
    head = start.params["head"]
    target = soft_target(jnp.asarray(batch.label), 4, 0.1)
    error = (jax.nn.softmax(x @ head["kernel"] + head["bias"]) - target) / len(x)
    expected = {"kernel": head["kernel"] - 0.1 * x.T @ error, "bias": head["bias"] - 0.1 * error.sum(0)}
    assert_close(after.params["head"], expected, 1e-5)


@pytest.mark.usefixtures("enable_x64")
def test_with_the_batchs_statistics_the_rest_learns_as_if_all_trained(one_device):
    recipe = frozen(policy="train")
    half, whole = (
        run_on(one_device, 1, dtype=jnp.float64, recipe=made)[0] for made in (recipe, recipe | {"frozen": None})
    )
    for name in ("stem_norm", "stage2_block1", "head"):
        assert_close(half.params[name], whole.params[name], 1e-10)
    assert_close(half.batch_stats, whole.batch_stats, 1e-10)


@pytest.mark.usefixtures("enable_x64")
def test_a_frozen_step_agrees_on_one_device_and_split_over_eight(one_device, eight_devices):
    fields = {"dtype": jnp.float64, "features": (32, 64), "recipe": frozen(average=averaging(0.9))}
    one, eight = run_on(one_device, 3, **fields), run_on(eight_devices, 3, split=True, **fields)
    assert_close(one, eight, 1e-10)


def test_layers_of_the_network_here_are_those_that_are_frozen():
    groups = family_of(tiny()).structure(tiny()).groups()
    assert {layer for group in groups[:-1] for layer in group} == BEFORE_HEAD
