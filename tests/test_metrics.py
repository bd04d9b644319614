import jax
import numpy as np
import pytest

from jaxnets.metrics import Totals, summarise, sums

RNG = np.random.default_rng(0)
LOGITS = RNG.normal(size=(30, 7)).astype(np.float32)
LABELS = RNG.integers(0, 7, 30).astype(np.int32)
LOSSES = RNG.random(30).astype(np.float32)


def totals_of(*parts: slice | np.ndarray):
    totals = Totals()
    for part in parts:
        totals.add(sums(LOGITS[part], LABELS[part], np.ones(len(LABELS[part]), bool), LOSSES[part]))
    return totals.result()


def assert_equal_sums(a, b):
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-6)


def test_the_sums_of_the_parts_are_the_sums_of_the_whole():
    assert_equal_sums(totals_of(slice(0, 30)), totals_of(slice(0, 4), slice(4, 29), slice(29, 30)))


def test_masked_examples_count_as_if_they_were_not_there():
    mask = RNG.random(30) < 0.5
    totals = Totals()
    totals.add(sums(LOGITS, LABELS, mask, LOSSES))
    assert_equal_sums(totals.result(), totals_of(mask))


def test_a_masked_example_may_have_any_loss():
    mask = np.arange(30) != 3
    losses = np.where(mask, LOSSES, np.nan)
    assert np.isfinite(sums(LOGITS, LABELS, mask, losses).loss)


def test_accuracy_top5_and_loss_follow_their_definitions():
    summary = summarise(totals_of(slice(0, 30)))
    ranks = (LOGITS[np.arange(30), LABELS][:, None] < LOGITS).sum(1)
    assert summary["accuracy"] == pytest.approx((ranks == 0).mean())
    assert summary["top5"] == pytest.approx((ranks < 5).mean())
    assert summary["loss"] == pytest.approx(LOSSES.mean(), rel=1e-6)
    assert summary["count"] == 30


def test_top5_is_left_out_where_there_are_five_classes():
    totals = Totals()
    totals.add(sums(LOGITS[:, :5], LABELS % 5, np.ones(30, bool), LOSSES))
    assert "top5" not in summarise(totals.result())


def test_classes_are_counted_apart():
    totals = totals_of(slice(0, 30))
    np.testing.assert_array_equal(totals.class_count, np.bincount(LABELS, minlength=7))
    assert totals.class_correct.sum() == totals.correct
