import numpy as np
import pytest

from jaxnets.sweep.rules import below_minimum, diverges, growing, smoothed, steepest


def curve(rates, turn=0.1):
    """Returns losses that fall around a hundredth and rise from `turn` on, with a scatter of the first's digits."""
    x = np.log10(rates)
    losses = 2.3 - 1.2 / (1 + np.exp(-4 * (x + 2))) + np.exp(np.clip(8 * (x - np.log10(turn)), None, 5))
    return losses + np.random.default_rng(0).normal(0, 0.003, len(rates))


def test_each_rate_is_the_same_multiple_of_the_one_before():
    rates = growing(1e-6, 10.0, 71)
    assert rates[0] == 1e-6
    assert rates[-1] == pytest.approx(10.0)
    np.testing.assert_allclose(rates[1:] / rates[:-1], 10**0.1)


def test_the_average_has_no_bias_towards_zero():
    np.testing.assert_allclose(smoothed([3.0] * 5), 3.0)
    weights = 0.9 ** np.arange(2, -1, -1)
    assert smoothed([1.0, 5.0, 2.0])[-1] == pytest.approx(weights @ [1, 5, 2] / weights.sum())


def test_the_suggestions_lie_where_the_loss_falls_and_below_where_it_is_least():
    rates = growing(1e-6, 10.0, 200)
    losses = curve(rates)
    ended = next(n for n in range(1, 201) if diverges(losses[:n].tolist()))
    rates, losses = rates[:ended], losses[:ended]
    assert 0.1 < rates[-1] < 1
    least = rates[losses.argmin()]
    assert 0.006 < steepest(rates, losses) < least
    assert least / 10 <= below_minimum(rates, losses) < least / 2


def test_a_loss_that_falls_nowhere_has_no_suggestion():
    rates = growing(1e-6, 1.0, 50)
    assert steepest(rates, np.linspace(2, 3, 50)) is None
    assert below_minimum(rates, np.linspace(2, 3, 50)) is None


def test_a_loss_diverges_that_is_no_number_far_above_its_least_or_above_its_beginning():
    falling = np.linspace(2.3, 1.5, 60).tolist()
    assert not diverges(falling)
    assert diverges([*falling, float("nan")])
    assert diverges([*falling, 60.0])
    assert diverges([*falling, *[2.7] * 30])  # as with normalised activations: it forgets, and grows no further
    scattered = (2.3 + np.random.default_rng(0).normal(0, 0.1, 100)).tolist()
    assert not any(diverges(scattered[:n]) for n in range(1, 101))
