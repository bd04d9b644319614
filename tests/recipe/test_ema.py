"""Averages against the formulas of the libraries that they are named after, restated here."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnets.recipe.ema import EmaConfig, TimmWarmup, make_average

STEPS, WARMUP, EPOCHS, BATCH = 80, 20, 8.0, 64
VALUES = np.random.default_rng(0).normal(size=(STEPS, 7))
START = 3 * VALUES[0]


def averages(spec: EmaConfig, dtype=np.float32):
    """Returns the average after each step."""
    follow = jax.jit(make_average(spec, batch_size=BATCH, epochs=EPOCHS, warmup_steps=WARMUP))
    average, found = {"params": jnp.asarray(START, dtype)}, []
    for t, values in enumerate(VALUES):
        average = follow(average, {"params": jnp.asarray(values, dtype)}, jnp.int32(t))
        found.append(np.asarray(average["params"]))
    return np.stack(found)


def recurrence(decay_at):
    """Returns the same from each step's decay; None where the average stays as it is."""
    average, found = START, []
    for t, values in enumerate(VALUES):
        if (decay := decay_at(t)) is not None:
            average = decay * average + (1 - decay) * values
        found.append(average)
    return np.stack(found)


def timm(decay, gamma=1.0, power=2 / 3, after=0, warm=True):  # ModelEmaV3.get_decay, of the step that is averaged
    def decay_at(t):
        step = max(0, (t + 1) - after - 1)
        if step <= 0:
            return 0.0
        return max(min(1 - (1 + step / gamma) ** -power, decay), 0.0) if warm else decay

    return decay_at


def torchvision(decay, every):  # references/classification/train.py, with its steps counted over the run
    alpha = min(1.0, (1 - decay) * (BATCH * every / EPOCHS))
    averaged = 0

    def decay_at(t):
        nonlocal averaged
        if t % every:
            return None
        found = 0.0 if averaged == 0 else 1 - alpha
        averaged = 0 if t < WARMUP else averaged + 1
        return found

    return decay_at


@pytest.mark.parametrize(
    ("spec", "decay_at"),
    [
        (EmaConfig(decay=0.9999), lambda t: min(0.9999, (1 + t) / (10 + t))),
        (EmaConfig(decay=0.8, every_steps=3), lambda t: None if t % 3 else min(0.8, (1 + t // 3) / (10 + t // 3))),
        (EmaConfig(decay=0.9999, warmup="none"), lambda t: 0.9999),
        (EmaConfig(decay=0.97, warmup="timm"), timm(0.97)),
        (
            EmaConfig(decay=0.9, warmup="timm", timm=TimmWarmup(gamma=4.0, power=0.75, after_steps=5)),
            timm(0.9, 4.0, 0.75, 5),
        ),
        (
            EmaConfig(decay=0.9, warmup="timm", timm=TimmWarmup(power=None, after_steps=5)),
            timm(0.9, after=5, warm=False),
        ),
        (EmaConfig(decay=0.995, warmup="torchvision", every_steps=3), torchvision(0.995, 3)),
        (EmaConfig(decay=0.9, warmup="torchvision"), torchvision(0.9, 1)),  # so small that it stays a copy
    ],
)
def test_an_average_follows_the_formula_that_it_is_named_after(spec, decay_at):
    np.testing.assert_allclose(averages(spec), recurrence(decay_at), atol=1e-6)


def test_a_constant_average_is_its_closed_form(enable_x64):
    decay = 0.9
    found = averages(EmaConfig(decay=decay, warmup="none"), np.float64)[-1]
    weights = (1 - decay) * decay ** np.arange(STEPS)[::-1]
    np.testing.assert_allclose(found, decay**STEPS * START + weights @ VALUES, rtol=1e-12)


def test_a_high_decay_is_not_rounded_with_its_complement():
    """1 − float32(0.99998) is 1.3e-5 of itself off, which 20,000 steps would show."""
    follow = make_average(EmaConfig(decay=0.99998, warmup="none"), batch_size=1, epochs=1.0, warmup_steps=0)
    run = jax.jit(lambda x: jax.lax.fori_loop(0, 20000, lambda t, x: follow(x, {"w": jnp.zeros(())}, t), x))
    np.testing.assert_allclose(run({"w": jnp.ones(())})["w"], 0.99998**20000, rtol=1e-4)


def test_while_the_average_is_a_copy_it_is_one_to_the_bit():
    found = averages(EmaConfig(decay=0.995, warmup="torchvision"))
    np.testing.assert_array_equal(found[:WARMUP], VALUES[:WARMUP].astype(np.float32))
    assert not np.array_equal(found[WARMUP + 1], VALUES[WARMUP + 1].astype(np.float32))


def test_without_a_decay_there_is_no_average():
    assert make_average(EmaConfig(), batch_size=1, epochs=1.0, warmup_steps=0) is None
