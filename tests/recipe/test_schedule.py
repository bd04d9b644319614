"""Schedules beside those of other libraries (`make_peers.py`) and the formulas of published code."""

import logging

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnets.config import resolve
from jaxnets.recipe.schedule.table import make_momentum, make_schedule
from tests.recipe.make_peers import DATA

PEERS = np.load(DATA)
PEAK = 0.4


def spec_of(**schedule):
    return resolve({"epochs": 100.0, "schedule": schedule}).schedule


def rates(steps: int, steps_per_epoch: float, **schedule) -> np.ndarray:
    at = make_schedule(spec_of(**schedule), PEAK, steps, steps_per_epoch)
    return np.asarray(jax.jit(jax.vmap(at))(jnp.arange(steps)))


@pytest.mark.parametrize("form", ["cos", "linear"])
@pytest.mark.parametrize("rise", [0.3, 0.1])
def test_one_cycle_is_torchs_with_its_momentum(form, rise):
    one_cycle = {"rise": rise, "form": "cosine" if form == "cos" else form}
    rate, momentum = PEERS[f"one_cycle_{form}_{rise}"]
    np.testing.assert_allclose(rates(80, 8.0, name="one_cycle", one_cycle=one_cycle), rate, atol=1e-7)
    at = make_momentum(spec_of(name="one_cycle", one_cycle=one_cycle), 80, 8.0)
    np.testing.assert_allclose([float(at(step)) for step in range(80)], momentum, atol=1e-6)


TIMM = {"warmup_epochs": 5.0, "warmup_start": 0.005, "per_epoch": True}


@pytest.mark.parametrize(
    ("peer", "schedule"),
    [
        ("timm_cosine_from_start", {"name": "cosine", "final": 0.01, "counts_from": "start", **TIMM}),
        ("timm_cosine_after", {"name": "cosine", "final": 0.01, **TIMM}),
        ("timm_step", {"name": "exponential", **TIMM}),
        ("torchvision_cosine", {"name": "cosine", **TIMM, "warmup_start": 0.01}),
        ("exponential", {"name": "exponential", "per_epoch": True, "exponential": {"every_epochs": 1.0}}),
    ],
)
@pytest.mark.parametrize("steps_per_epoch", [8.0, 7.5])
def test_per_epoch_the_rate_is_that_of_timm_and_torch_from_an_epochs_first_step_to_its_last(
    peer, schedule, steps_per_epoch
):
    steps = int(60 * steps_per_epoch)
    epoch = (np.arange(steps) // steps_per_epoch).astype(int)
    np.testing.assert_allclose(rates(steps, steps_per_epoch, **schedule), PEERS[peer][epoch], atol=1e-6)


def test_the_rate_of_efficientnet_falls_from_its_first_step_on_and_has_dropped_twice_when_it_is_warm():
    """`build_learning_rate` of tensorflow/tpu: a line takes the place of the first five epochs of the staircase."""
    per_epoch, steps = 62.6, 3000
    step = np.arange(steps)
    expected = PEAK * 0.97 ** np.floor(step / (per_epoch * 2.4))
    warm = step < 5 * per_epoch
    expected[warm] = PEAK * step[warm] / (5 * per_epoch)
    found = rates(steps, per_epoch, name="exponential", warmup_epochs=5.0)
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(found[313], PEAK * 0.97**2, rtol=1e-6)


def test_the_points_of_ffcv_are_joined_by_straight_lines():
    """`get_lr` of libffcv/ffcv-imagenet at epochs 0, 2 and 16, and between two epochs a line over the steps."""
    ends = np.interp(np.arange(17), [0, 2, 16], [1e-4 * PEAK, PEAK, 0])
    expected = np.concatenate([np.interp(np.arange(25), [0, 25], ends[e : e + 2]) for e in range(16)])
    shares = (1e-4, 1.0, 0.0)
    for given in ({"epochs": (0.0, 2.0, 16.0)}, {"steps": (0.0, 50.0, 400.0)}):
        found = rates(400, 25.0, name="piecewise", piecewise={**given, "shares": shares})
        np.testing.assert_allclose(found, expected, atol=1e-7)
    # The same without a length in it: a warm-up and a straight fall.
    np.testing.assert_allclose(
        rates(400, 25.0, name="linear", warmup_epochs=2.0, warmup_start=1e-4), expected, atol=1e-7
    )


def test_durations_in_steps_are_those_in_epochs():
    by_epochs = rates(120, 12.0, name="exponential", warmup_epochs=2.0, exponential={"every_epochs": 0.5})
    by_steps = rates(120, 12.0, name="exponential", warmup_steps=24, exponential={"every_steps": 6})
    np.testing.assert_array_equal(by_epochs, by_steps)


def test_the_rate_drops_at_milestones_in_epochs():
    found = rates(1000, 12.5, name="step", milestone_epochs=(30.0, 60.0), factor=0.1)
    np.testing.assert_allclose(found[[374, 375, 749, 750]], [0.4, 0.04, 0.04, 0.004], rtol=1e-6)


def test_a_milestone_past_the_end_is_told_and_comes_when_the_run_is_longer(caplog):
    with caplog.at_level(logging.WARNING):
        short = rates(500, 12.5, name="step", milestone_epochs=(30.0, 60.0), factor=0.1)
    assert "milestone_epochs 60: the run ends after 40 epochs, so that the rate does not drop there" in caplog.text
    caplog.clear()
    long = rates(1000, 12.5, name="step", milestone_epochs=(30.0, 60.0), factor=0.1)
    np.testing.assert_array_equal(long[:500], short)
    assert not caplog.text


def test_points_that_do_not_fit_the_run_are_told(caplog):
    given = {"epochs": (0.0, 2.0, 16.0), "shares": (0.0, 1.0, 0.0)}
    with caplog.at_level(logging.WARNING):
        rates(100, 10.0, name="piecewise", piecewise=given)
        rates(320, 10.0, name="piecewise", piecewise=given)
    first, second = (record.getMessage() for record in caplog.records)
    assert "the run ends after step 100, before the points at 16" in first
    assert "the rate is 0 from step 160 on, so that the last 160 of 320 steps change nothing" in second


def test_a_stretched_schedule_is_that_of_the_longer_run():
    given = {"name": "step", "milestone_epochs": (3.0, 6.0), "warmup_epochs": 1.0}
    at = make_schedule(spec_of(**given).stretched(2.0), PEAK, 200, 10.0)
    found = np.asarray(jax.vmap(at)(jnp.arange(200)))
    np.testing.assert_allclose(found[::2], rates(100, 10.0, **given), rtol=1e-6)


@pytest.mark.usefixtures("enable_x64")
def test_rates_are_those_of_float32_in_float64_too():
    for name in ("cosine", "exponential", "one_cycle", "step"):
        assert rates(30, 7.5, name=name).dtype == np.float64
