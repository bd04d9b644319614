"""Attention rollout, against its equation in NumPy."""

import numpy as np
import pytest

from jaxnets import UserError
from jaxnets.explain.methods import METHODS
from tests.tiny import classifier, images


def weights_of(made, fitted):
    """Returns each block's attention [b, heads, n, n], first to last, from its own queries and keys."""
    x = made.preprocess.normalise(fitted, made.model.dtype)
    _, found = made.model.apply(made.variables, x, capture_intermediates=lambda module, _: module.name == "qkv")
    for block in ("stage1_block1", "stage2_block1", "stage2_block2"):
        (qkv,) = found["intermediates"][block]["attention"]["qkv"]["__call__"]
        q, k, _ = (np.asarray(part, np.float64) for part in np.split(qkv, 3, -1))
        heads = made.model.heads
        q, k = (part.reshape(*part.shape[:2], heads, -1).transpose(0, 2, 1, 3) for part in (q, k))
        scores = np.exp(q @ k.transpose(0, 1, 3, 2) / np.sqrt(q.shape[-1]))
        yield scores / scores.sum(-1, keepdims=True)


@pytest.mark.parametrize("kind", ["vit", "averaged"])
def test_the_map_is_the_product_of_what_the_blocks_pass_on(kind):
    made = classifier(kind, engine_name="jax")
    fitted = np.stack([made.preprocess.fit(image) for image in images(2)])
    found = made.explainer.maps(METHODS["rollout"], fitted, np.array([0, 1]))
    rolled = np.eye(13 if kind == "vit" else 12)
    for weights in weights_of(made, fitted):
        rolled = (weights.mean(1) + np.eye(weights.shape[-1])) / 2 @ rolled
    expected = rolled[:, 0, 1:] if kind == "vit" else rolled.mean(1)
    np.testing.assert_allclose(found, expected.reshape(2, 3, 4), rtol=1e-4, atol=1e-6)
    assert found.std() > 1e-3


def test_the_map_is_of_no_class():
    made = classifier("vit", engine_name="jax")
    first, second = made.explain_batch(images(1) * 2, [0, 1], method="rollout")
    np.testing.assert_array_equal(first.heat, second.heat)
    assert 0 <= first.heat.min() < first.heat.max() == 1


def test_a_network_without_attention_is_refused():
    made = classifier("cifar", engine_name="jax")
    with pytest.raises(UserError, match="this ResNet has no attention: take gradcam"):
        made.explain(images(1)[0], 0, method="rollout")
    assert not made.explainer.suits(METHODS["rollout"])


@pytest.mark.parametrize("kind", ["vit", "averaged"])
def test_grad_cam_sees_the_patches_of_the_last_block(kind):
    """The class token alone is read after the last block: what its attention sees has a gradient everywhere."""
    made = classifier(kind, engine_name="jax")
    fitted = made.preprocess.fit(images(1)[0])[None]
    maps = [made.explainer.maps(METHODS["gradcam"], fitted, np.array([label]))[0] for label in range(5)]
    assert {found.shape for found in maps} == {(3, 4)}
    assert max(found.max() for found in maps) > 0
