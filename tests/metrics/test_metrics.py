import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnets.metrics.metric import Outcome, Totals, Update, figures_of, sums_of
from jaxnets.metrics.table import EVALUATION, OF_A_STEP

RNG = np.random.default_rng(0)
LOGITS = RNG.normal(size=(30, 7)).astype(np.float32)
LABELS = RNG.integers(0, 7, 30).astype(np.int32)
LOSSES = RNG.random(30).astype(np.float32)
ALL = np.ones(30, bool)


def sums(chosen=slice(0, 30), mask=ALL, losses=LOSSES, logits=LOGITS, labels=LABELS):
    return sums_of(EVALUATION, Outcome(*(jnp.asarray(x[chosen]) for x in (logits, labels, mask, losses))))


def totals_of(*batches):
    totals = Totals()
    for batch in batches:
        totals.add(batch)
    return totals.result()


def assert_equal_sums(a, b):
    assert a.keys() == b.keys()
    for name in a:
        np.testing.assert_allclose(a[name], b[name], rtol=1e-6)


def test_the_sums_of_the_batches_are_the_sums_of_the_whole():
    batches = [sums(slice(*ends)) for ends in ((0, 4), (4, 29), (29, 30))]
    assert_equal_sums(totals_of(*batches), totals_of(sums()))


def test_masked_examples_count_as_if_they_were_not_there():
    mask = RNG.random(30) < 0.5
    assert_equal_sums(totals_of(sums(mask=mask)), totals_of(sums(mask)))


def test_a_masked_example_may_have_any_loss():
    mask = np.arange(30) != 3
    assert np.isfinite(sums(mask=mask, losses=np.where(mask, LOSSES, np.nan).astype(np.float32))["loss"])


def test_accuracy_top5_and_loss_follow_their_definitions():
    figures = figures_of(EVALUATION, totals_of(sums()))
    ranks = (LOGITS[np.arange(30), LABELS][:, None] < LOGITS).sum(1)
    assert figures["accuracy"] == pytest.approx((ranks == 0).mean())
    assert figures["top5"] == pytest.approx((ranks < 5).mean())
    assert figures["loss"] == pytest.approx(LOSSES.mean(), rel=1e-6)
    assert figures["count"] == 30


def test_top5_is_left_out_where_there_are_five_classes():
    assert "top5" not in figures_of(EVALUATION, totals_of(sums(logits=LOGITS[:, :5], labels=LABELS % 5)))


def test_classes_are_counted_apart():
    total = totals_of(sums())
    np.testing.assert_array_equal(total["class_count"], np.bincount(LABELS, minlength=7))
    assert total["class_correct"].sum() == total["correct"]


def test_without_examples_ratios_are_nan():
    figures = figures_of(EVALUATION, totals_of(sums(mask=~ALL)))
    assert figures["count"] == 0
    assert np.isnan(figures["accuracy"])


def test_the_gradient_norm_is_the_mean_over_steps():
    gradients = [{"a": jnp.array([3.0, 0.0]), "b": jnp.array([[4.0]])}, {"a": jnp.zeros(2), "b": jnp.array([[1.0]])}]
    metric = OF_A_STEP["gradient_norm"]
    total = totals_of(*(jax.jit(lambda g: sums_of([metric], Update(g, g)))(g) for g in gradients))
    assert figures_of([metric], total) == {"gradient_norm": pytest.approx(3.0)}
