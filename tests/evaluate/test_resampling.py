"""Intervals by resampling."""

import numpy as np
import pytest

from jaxnets.evaluate import resampling
from jaxnets.evaluate.resampling import bootstrap, draws, interval
from jaxnets.evaluate.weighted import mean


def test_the_same_seed_gives_the_same_resamples_whatever_is_in_memory_at_once(monkeypatch):
    whole = np.concatenate(list(draws(30, seed=3, resamples=50)))
    monkeypatch.setattr(resampling, "_AT_ONCE", 210)  # seven at a time
    np.testing.assert_array_equal(np.concatenate(list(draws(30, seed=3, resamples=50))), whole)
    assert (np.concatenate(list(draws(30, seed=4, resamples=50))) != whole).any()


def test_each_resample_draws_as_many_images_as_there_are():
    counts = np.concatenate(list(draws(17, seed=0, resamples=40)))
    assert counts.shape == (40, 17)
    assert (counts.sum(1) == 17).all()


def test_images_of_one_unit_are_drawn_together():
    units = np.array(["b", "a", "b", "c", "a", "a"])
    counts = np.concatenate(list(draws(6, seed=0, units=units, resamples=40)))
    for unit in "abc":
        assert (np.ptp(counts[:, units == unit], axis=1) == 0).all()
    assert (counts[:, [0, 1, 3]].sum(1) == 3).all()


def test_the_interval_of_a_mean_is_that_of_the_normal_distribution():
    values = np.random.default_rng(0).normal(3, 2, 400)
    (found,) = bootstrap([mean(values)], 400, seed=0)
    assert found.value == pytest.approx(values.mean())
    half = 1.96 * values.std() / 20
    assert found.low == pytest.approx(values.mean() - half, abs=0.1 * half)
    assert found.high == pytest.approx(values.mean() + half, abs=0.1 * half)


def test_units_make_the_interval_wider_where_images_of_one_are_alike():
    units = np.repeat(np.arange(20), 20)
    values = np.repeat(np.random.default_rng(0).normal(size=20), 20)
    alone, together = (bootstrap([mean(values)], 400, seed=0, units=given)[0] for given in (None, units))
    assert together.high - together.low > 3 * (alone.high - alone.low)


def test_one_image_has_an_interval_of_no_width():
    (found,) = bootstrap([mean(np.array([0.25]))], 1, seed=0)
    assert found == (0.25, 0.25, 0.25)


def test_resamples_without_the_figure_do_not_count():
    found = interval(1.0, np.array([np.nan, 1.0, 1.0, np.nan]))
    assert found == (1, 1, 1)
    assert np.isnan(interval(1.0, np.full(3, np.nan)).low)
