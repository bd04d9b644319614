"""Every optimizer in what a training does with it: sharded, saved and restored, frozen and thawed."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from jaxnets.config import resolve
from jaxnets.models.family import Structure
from jaxnets.recipe.freeze import Freezing
from jaxnets.recipe.optimizer.table import make_optimizer
from jaxnets.recipe.schedule.table import make_momentum, make_schedule
from jaxnets.run.checkpoints import Progress
from jaxnets.train.mesh import over_data, replicated
from jaxnets.train.saver import Checkpointer
from jaxnets.train.step import TrainState

STRUCTURE = Structure(stem=("stem",), stages={"stage1": (("block",),)}, head="head")
KEYS = {
    "sgd": {},
    "adamw": {},
    "rmsprop": {"decay_form": "decoupled"},
    "lamb": {},
    "lars": {"lars": {"trust": 0.1}},
    "lion": {},
    "muon": {"muon": {"form": "airbench", "fallback": "sgd"}, "decay_by": "schedule"},
    "muon_by_adamw": {"name": "muon", "adaptive_clip": 0.01},
    "one_cycle": {"name": "adamw"},
}
STEPS = 6


def optimizers(freezing=None, rates=None, names=tuple(KEYS)):
    """Returns the optimizers by their names, which follow a rate that falls."""
    found = {}
    for name in names:
        cycle = name == "one_cycle"
        config = resolve(
            {"optimizer": {"name": name, "learning_rate": 0.02, "weight_decay": 0.1, **KEYS[name]}}
            | {"schedule": {"name": "one_cycle" if cycle else "linear"}}
        )
        found[name] = make_optimizer(
            config.optimizer,
            make_schedule(config.schedule, 0.02, STEPS, 2.0),
            rates,
            freezing,
            momentum=make_momentum(config.schedule, STEPS, 2.0),
            structure=STRUCTURE,
        )
    return found


def params_of(dtype=np.float32):
    random = np.random.RandomState(0)
    shapes = {
        ("stem", "kernel"): (3, 3, 1, 8),
        ("block", "kernel"): (3, 3, 8, 16),
        ("block", "scale"): (8,),
        ("head", "kernel"): (16, 8),
        ("head", "bias"): (8,),
    }
    params: dict = {}
    for (layer, name), shape in shapes.items():
        params.setdefault(layer, {})[name] = random.randn(*shape).astype(dtype)
    return params


def stepper(own):
    """Returns the function that takes parameters and states by optimizer through some steps; one program for all."""

    @jax.jit
    def step(params, state, number):
        found = {}
        for name, optimizer in own.items():
            gradient = jax.tree.map(lambda w, number=number: w * 0.1 + jnp.cos(w * 9 + number), params[name])
            change, after = optimizer.update(gradient, state[name], params[name])
            found[name] = optax.apply_updates(params[name], change), after
        return {name: p for name, (p, _) in found.items()}, {name: s for name, (_, s) in found.items()}

    def stepped(params, state, steps, first=0):
        for number in range(first, first + steps):
            params, state = step(params, state, jax.tree.leaves(params)[0].dtype.type(number))
        return params, state

    return stepped


def begin(own, params):
    return dict.fromkeys(own, params), {name: optimizer.init(params) for name, optimizer in own.items()}


def test_each_goes_on_from_a_checkpoint_to_the_same_bits(tmp_path: Path, one_device):
    own = optimizers()
    stepped = stepper(own)
    half = stepped(*begin(own, params_of()), 3)
    whole = stepped(*half, 3, first=3)
    state = TrainState(step=jnp.int32(3), params=half[0], batch_stats={}, opt_state=half[1], ema=None)
    checkpointer = Checkpointer(tmp_path)
    checkpointer.save(state, Progress(step=3))
    checkpointer.close()
    like = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=replicated(one_device)), state)
    restored, _ = Checkpointer(tmp_path).restore(lambda step: like)
    assert jax.tree.structure(restored.opt_state) == jax.tree.structure(half[1])
    again = stepped(restored.params, restored.opt_state, 3, first=3)
    for (path, x), y in zip(jax.tree_util.tree_leaves_with_path(whole), jax.tree.leaves(again), strict=True):
        np.testing.assert_array_equal(x, y, err_msg=jax.tree_util.keystr(path))


@pytest.mark.usefixtures("enable_x64")
def test_each_gives_on_eight_devices_with_shares_of_the_parameters_what_it_gives_on_one(eight_devices):
    own = optimizers(names=["lamb", "lars", "muon", "muon_by_adamw"])  # the others go number by number
    params, state = begin(own, params_of(np.float64))
    stepped = stepper(own)
    whole = stepped(params, state, 2)

    def sharding(x):
        split = NamedSharding(eight_devices, PartitionSpec(*[None] * (x.ndim - 1), "data"))
        return split if x.ndim else replicated(eight_devices)

    def place(tree):
        return jax.tree.map(lambda x: jax.device_put(x, sharding(jnp.asarray(x))), tree)

    split = stepped(place(params), place(state), 2)
    largest = split[0]["muon"]["block"]["kernel"]
    assert largest.sharding.is_equivalent_to(over_data(eight_devices, axis=3), 4)
    for (path, x), y in zip(jax.tree_util.tree_leaves_with_path(whole), jax.tree.leaves(split), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-9, atol=1e-9, err_msg=jax.tree_util.keystr(path))


@pytest.mark.parametrize("name", ["rmsprop", "lars", "muon", "one_cycle"])
def test_what_thaws_goes_as_if_the_run_began_there_at_the_rate_of_now(name):
    """It has the rates of its layers too, and what trained before does not notice."""
    rates = {"stem": 0.25, "block": 0.5, "head": 2.0}
    thawing = optimizers(Freezing(thaws={"block": 3}), rates, [name])
    whole, before = params_of(), {layer: tree for layer, tree in params_of().items() if layer != "block"}
    params, state = stepper(thawing)(*begin(thawing, before), 3)
    state = {name: (state[name][0], thawing[name].init(whole)[1] | state[name][1])}
    params, _ = stepper(thawing)({name: params[name] | {"block": whole["block"]}}, state, 2, first=3)

    config = resolve({"optimizer": {"name": name, "learning_rate": 0.02, "weight_decay": 0.1, **KEYS[name]}})
    later, momentum = schedules(name)
    alone = {
        name: make_optimizer(
            config.optimizer,
            lambda count: later(count + 3),
            rates,
            peak=0.02,
            momentum=momentum and (lambda count: momentum(count + 3)),
            structure=STRUCTURE,
        )
    }
    expected, _ = stepper(alone)(*begin(alone, {"block": whole["block"]}), 2, first=3)
    for key, x in expected[name]["block"].items():
        np.testing.assert_allclose(params[name]["block"][key], x, rtol=1e-6, atol=1e-6)
        assert np.abs(x - whole["block"][key]).max() > 1e-4


def schedules(name):
    config = resolve({"schedule": {"name": "one_cycle" if name == "one_cycle" else "linear"}})
    return make_schedule(config.schedule, 0.02, STEPS, 2.0), make_momentum(config.schedule, STEPS, 2.0)
