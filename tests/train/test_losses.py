import numpy as np
import pytest

from jaxnets.train.losses import cross_entropy

LOGITS = np.random.default_rng(0).normal(size=(6, 4)).astype(np.float32)
LABELS = np.array([0, 1, 2, 3, 0, 1], np.int32)
P = np.exp(LOGITS) / np.exp(LOGITS).sum(-1, keepdims=True)


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.9])
def test_cross_entropy_follows_its_definition(smoothing):
    target = (1 - smoothing) * np.eye(4)[LABELS] + smoothing / 4
    np.testing.assert_allclose(cross_entropy(LOGITS, LABELS, smoothing), -(target * np.log(P)).sum(-1), rtol=1e-5)


def test_large_logits_do_not_overflow():
    np.testing.assert_allclose(cross_entropy(np.array([[1e4, -1e4]]), np.array([1])), [2e4])
