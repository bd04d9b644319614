import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxnets.config import resolve
from jaxnets.recipe.freeze import Freezing
from jaxnets.recipe.groups import layer_rates
from jaxnets.recipe.optimizer.table import make_optimizer
from jaxnets.recipe.schedule.table import make_schedule, total_steps


def rates(steps: int, **schedule) -> np.ndarray:
    schedule_at = make_schedule(resolve({"schedule": schedule}).schedule, 0.4, steps, steps_per_epoch=5)
    return np.asarray(jax.vmap(schedule_at)(jnp.arange(steps + 1)))


def test_cosine_follows_its_formula_after_a_linear_rise():
    found = rates(45, name="cosine", warmup_epochs=1.0, final=0.1)
    np.testing.assert_allclose(found[:6], 0.4 * np.arange(6) / 5, atol=1e-7)
    share = np.arange(41) / 40
    np.testing.assert_allclose(found[5:], 0.4 * (0.1 + 0.9 * (1 + np.cos(np.pi * share)) / 2), atol=1e-6)


def test_linear_goes_straight_to_its_end():
    np.testing.assert_allclose(rates(10, name="linear"), 0.4 * (1 - np.arange(11) / 10), atol=1e-7)


def test_step_drops_at_its_milestones_with_and_without_warmup():
    for warmup in (0.0, 1.0):
        found = rates(40, name="step", milestones=(0.5, 0.75), factor=0.1, warmup_epochs=warmup)
        np.testing.assert_allclose(found[[19, 21, 29, 31]], [0.4, 0.04, 0.04, 0.004], rtol=1e-5)


def test_constant_stays():
    np.testing.assert_allclose(rates(10, name="constant"), 0.4)


def test_steps_replace_epochs_when_set():
    assert total_steps(None, 3.0, steps_per_epoch=2.5) == 8
    assert total_steps(4, 3.0, steps_per_epoch=2.5) == 4


PARAMS = {"conv": {"kernel": jnp.array([2.0])}, "norm": {"scale": jnp.array([2.0]), "bias": jnp.array([2.0])}}
ZERO = {"conv": {"kernel": jnp.array([0.0])}, "norm": {"scale": jnp.array([0.0]), "bias": jnp.array([0.0])}}


def step(gradient, n=1, rates=None, **optimizer):
    chosen = make_optimizer(resolve({"optimizer": optimizer}).optimizer, lambda step: 0.1, rates)
    params, state = PARAMS, chosen.init(PARAMS)
    for _ in range(n):
        change, state = chosen.update(gradient, state, params)
        params = optax.apply_updates(params, change)
    return params


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_weight_decay_reaches_the_kernels_alone(name):
    after = step(ZERO, name=name, weight_decay=0.5)
    assert after["conv"]["kernel"][0] < 2
    assert after["norm"] == PARAMS["norm"]


@pytest.mark.parametrize(
    ("decay_on", "decayed"),
    [
        ("kernels", {"conv/kernel", "gate/kernel"}),
        ("no_norms", {"conv/kernel", "gate/kernel", "gate/bias"}),
        ("no_scales", {"conv/kernel", "gate/kernel", "gate/bias", "norm/bias"}),
        ("all", {"conv/kernel", "gate/kernel", "gate/bias", "norm/bias", "norm/scale"}),
    ],
)
def test_weight_decay_reaches_the_kinds_of_parameters_that_are_asked_for(decay_on, decayed):
    params = PARAMS | {"gate": {"kernel": jnp.array([2.0]), "bias": jnp.array([2.0])}}
    chosen = make_optimizer(resolve({"optimizer": {"decay_on": decay_on}}).optimizer, lambda step: 0.1)
    change, _ = chosen.update(jax.tree.map(jnp.zeros_like, params), chosen.init(params), params)
    found = {f"{layer}/{name}" for layer, tree in change.items() for name, x in tree.items() if x[0] < 0}
    assert found == decayed


def test_nesterov_momentum_follows_its_recurrence():
    after = step({"conv": {"kernel": jnp.array([1.0])}, "norm": ZERO["norm"]}, n=2, momentum=0.5, weight_decay=0.0)
    # Sutskever et al. 2013: v ← 0.5 v + g, x ← x − 0.1 (g + 0.5 v), for two steps with g = 1.
    np.testing.assert_allclose(after["conv"]["kernel"], 2 - 0.1 * (1 + 0.5 * 1) - 0.1 * (1 + 0.5 * 1.5), rtol=1e-6)


def test_a_gradient_over_the_limit_is_scaled_to_it():
    gradient = {"conv": {"kernel": jnp.array([30.0])}, "norm": {"scale": jnp.array([40.0]), "bias": jnp.array([0.0])}}
    after = step(gradient, clip_norm=1.0, momentum=0.0, weight_decay=0.0)
    np.testing.assert_allclose(after["conv"]["kernel"], 2 - 0.1 * 0.6, rtol=1e-6)


@pytest.mark.parametrize(
    ("decay", "head", "rates"),
    [
        (0.5, 1.0, {"stem": 0.25, "block1": 0.5, "block2": 0.5, "head": 1.0}),
        (1.0, 10.0, {"stem": 1.0, "block1": 1.0, "block2": 1.0, "head": 10.0}),
        (0.5, 10.0, {"stem": 0.25, "block1": 0.5, "block2": 0.5, "head": 10.0}),
        (1.0, 1.0, None),
    ],
)
def test_layers_before_the_head_learn_the_slower_the_earlier_they_are(decay, head, rates):
    assert layer_rates([["stem"], ["block1", "block2"], ["head"]], decay, head) == rates


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_a_layers_rate_multiplies_its_step_and_decay(name):
    gradient = {"conv": {"kernel": jnp.array([1.0])}, "norm": {"scale": jnp.array([1.0]), "bias": jnp.array([1.0])}}
    whole = step(gradient, name=name, weight_decay=0.5)
    layered = step(gradient, name=name, weight_decay=0.5, rates={"conv": 0.25, "norm": 1.0})
    np.testing.assert_allclose(2 - layered["conv"]["kernel"], (2 - whole["conv"]["kernel"]) / 4, rtol=1e-5)
    assert layered["norm"] == whole["norm"]


FREEZING = Freezing(thaws={"conv": 3})
GRADIENT = {"conv": {"kernel": jnp.array([0.7])}, "norm": {"scale": jnp.array([-0.3]), "bias": jnp.array([0.2])}}


def thawed(optimizer, schedule, steps=(3, 2)):
    """Returns the parameters before and after `conv` thaws, having trained for as many steps as given."""
    chosen = make_optimizer(resolve({"optimizer": optimizer}).optimizer, schedule, None, FREEZING)
    conv, rest = {"conv": PARAMS["conv"]}, {"norm": PARAMS["norm"]}
    state, found = chosen.init(rest), []
    for frozen, count in zip((True, False), steps, strict=True):
        params = rest if frozen else rest | conv
        fresh = chosen.init(params)
        state = (state[0], fresh[1] | state[1])
        for _ in range(count):
            change, state = chosen.update({name: GRADIENT[name] for name in params}, state, params)
            params = optax.apply_updates(params, change)
        rest = {"norm": params["norm"]}
        found.append(params)
    return found


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_what_thaws_goes_as_if_the_run_began_there_at_the_rate_of_now(name):
    """With Adam's one count for all, the first step of what thaws late would be three times too long."""
    optimizer = {"name": name, "weight_decay": 0.1}
    falling = make_schedule(resolve({"schedule": {"name": "linear"}}).schedule, 0.1, 10, steps_per_epoch=5)
    _, after = thawed(optimizer, falling)
    alone = make_optimizer(resolve({"optimizer": optimizer}).optimizer, lambda step: falling(step + 3))
    params, state = {"conv": PARAMS["conv"]}, alone.init({"conv": PARAMS["conv"]})
    for _ in range(2):
        change, state = alone.update({"conv": GRADIENT["conv"]}, state, params)
        params = optax.apply_updates(params, change)
    np.testing.assert_allclose(after["conv"]["kernel"], params["conv"]["kernel"], rtol=1e-6)


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_what_trains_from_the_start_does_not_notice_a_thaw(name):
    _, after = thawed({"name": name}, lambda step: 0.1)
    whole = step(GRADIENT, n=5, name=name)
    np.testing.assert_array_equal(after["norm"]["scale"], whole["norm"]["scale"])


def test_the_limit_of_the_gradient_is_one_for_all_that_trains():
    _, after = thawed({"clip_norm": 0.1, "momentum": 0.0, "weight_decay": 0.0}, lambda step: 0.1, (0, 1))
    norm = np.sqrt(0.7**2 + 0.3**2 + 0.2**2)
    np.testing.assert_allclose(after["conv"]["kernel"], 2 - 0.1 * 0.7 * 0.1 / norm, rtol=1e-6)
