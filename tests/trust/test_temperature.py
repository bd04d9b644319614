"""The temperature is that of the least log-loss, and none where there is no such."""

import math

import numpy as np
import pytest
from scipy.optimize import minimize_scalar

from jaxnets.errors import UserError
from jaxnets.trust.temperature import at_temperature, fit_temperature, log_loss


def drawn(n: int, classes: int, temperature: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Returns logits that are `temperature` times what the labels were drawn from."""
    random = np.random.default_rng(seed)
    z = 2 * random.normal(size=(n, classes))
    labels = (z + random.gumbel(size=z.shape)).argmax(1)
    return (temperature * z).astype(np.float32), labels.astype(np.int32)


def test_two_logits_of_one_size_have_the_temperature_of_the_closed_form():
    # 100 images with logits 0 and ±3, of which 80 are right: σ(3 / T) = 0.8.
    logits = np.zeros((100, 2), np.float32)
    logits[:, 1] = 3
    labels = np.repeat([1, 0], [80, 20])
    assert fit_temperature(logits, labels) == pytest.approx(3 / math.log(0.8 / 0.2), rel=1e-7)
    assert log_loss(logits, labels, temperature=3 / math.log(4)) == pytest.approx(
        -0.8 * np.log(0.8) - 0.2 * np.log(0.2)
    )


@pytest.mark.parametrize("temperature", [0.3, 1.0, 6.0])
def test_it_is_scipy_s_minimum_of_the_log_loss(temperature):
    logits, labels = drawn(2000, 7, temperature)

    def loss(log_t):  # restated
        z = logits.astype(np.float64) / math.exp(log_t)
        return -(z[np.arange(len(z)), labels] - np.log(np.exp(z).sum(1))).mean()

    expected = minimize_scalar(loss, bounds=(-3, 3), method="bounded", options={"xatol": 1e-10})
    found = fit_temperature(logits, labels)
    assert math.log(found) == pytest.approx(expected.x, abs=1e-6)
    assert log_loss(logits, labels, temperature=found) == pytest.approx(expected.fun, rel=1e-12)
    assert found == pytest.approx(temperature, rel=0.15)


def test_of_several_labels_it_is_the_minimum_of_the_binary_cross_entropy():
    random = np.random.default_rng(0)
    z = random.normal(size=(3000, 4)) * 2 - 1
    labels = random.uniform(size=z.shape) < 1 / (1 + np.exp(-z))
    logits = (2.5 * z).astype(np.float32)

    def loss(t):
        p = 1 / (1 + np.exp(-logits.astype(np.float64) / t))
        return -np.where(labels, np.log(p), np.log1p(-p)).sum(1).mean()

    expected = minimize_scalar(loss, bounds=(0.5, 10), method="bounded", options={"xatol": 1e-10})
    found = fit_temperature(logits, labels, "sigmoid")
    assert found == pytest.approx(expected.x, rel=1e-6)
    assert log_loss(logits, labels, "sigmoid", found) == pytest.approx(expected.fun, rel=1e-12)


def test_in_pieces_it_is_the_same(monkeypatch):
    logits, labels = drawn(500, 5, 2.0)
    whole = fit_temperature(logits, labels)
    monkeypatch.setattr("jaxnets.trust.temperature._CHUNK", 64)
    assert fit_temperature(logits, labels) == pytest.approx(whole, rel=1e-9)


@pytest.mark.parametrize("scale", [1e-3, 1e4])
def test_logits_of_any_size_are_fitted_or_refused_and_never_overflow(scale):
    logits, labels = drawn(300, 4, 1.0)
    with np.errstate(over="raise", invalid="raise"), pytest.raises(UserError, match="no temperature can be fitted"):
        fit_temperature(logits * np.float32(scale), labels)


@pytest.mark.parametrize(
    ("logits", "labels", "expected"),
    [
        (np.eye(3, dtype=np.float32) * 5, np.arange(3), "right about all"),
        (np.eye(3, dtype=np.float32) * 5, np.array([1, 2, 0]), "nothing to do with"),
        (np.zeros((0, 3), np.float32), np.zeros(0, np.int32), "there are none"),
        (np.full((2, 3), np.nan, np.float32), np.zeros(2, np.int32), "NaN"),
    ],
    ids=["all right", "all wrong", "no images", "NaN"],
)
def test_where_there_is_no_minimum_it_says_why(logits, labels, expected):
    with pytest.raises(UserError, match=expected):
        fit_temperature(logits, labels)


def test_thresholds_at_a_temperature_say_the_same_labels():
    z = np.random.default_rng(0).normal(size=(200, 3)) * 3
    thresholds = (0.2, 0.9, 0.5)
    of_scaled = at_temperature(thresholds, 2.5)
    np.testing.assert_array_equal(1 / (1 + np.exp(-z)) > thresholds, 1 / (1 + np.exp(-z / 2.5)) > of_scaled)
    np.testing.assert_allclose(at_temperature(of_scaled, 1 / 2.5), thresholds, rtol=1e-12)
    assert at_temperature((0.0, 1.0), 2.5) == (0.0, 1.0)
    assert at_temperature(thresholds, None) is thresholds
