"""AugMix: its blend against timm's at fixed draws, and the draws."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageOps

from jaxnets.preprocess import Preprocess
from jaxnets.recipe.augment.augmix import AugMix, Chains, mix_chains
from jaxnets.recipe.augment.op import keys_of
from jaxnets.recipe.augment.policy.layer import Kind

SEEN = Preprocess(height=12, width=10, channels=3, mean=(0.5, 0.4, 0.3), std=(0.2,) * 3)
IMAGES = np.random.default_rng(0).integers(0, 256, (16, 12, 10, 3), np.uint8)
ON_PIXELS = {
    Kind.IDENTITY: lambda image, _: image,
    Kind.POSTERIZE: lambda image, bits: ImageOps.posterize(image, int(bits)),
    Kind.SOLARIZE: lambda image, threshold: ImageOps.solarize(image, int(threshold)),
    Kind.BRIGHTNESS: lambda image, factor: ImageEnhance.Brightness(image).enhance(float(factor)),
    Kind.COLOR: lambda image, factor: ImageEnhance.Color(image).enhance(float(factor)),
}


def keys(count: int, epoch: int = 0):
    return keys_of(0, seed=0, epoch=np.full(count, epoch, np.int32), index=np.arange(count, dtype=np.int32))


def test_chains_are_blended_as_timms():
    """`AugMixAugment._apply_basic` of timm 1.0.31."""
    random = np.random.default_rng(1)
    kind = random.choice(list(ON_PIXELS), (3, 16, 2)).astype(np.int32)
    made = {Kind.POSTERIZE: (1, 8), Kind.SOLARIZE: (0, 256)}
    amount = np.array(
        [random.integers(*made[k]) if k in made else random.uniform(0.1, 1.9) for k in kind.ravel()], np.float32
    ).reshape(kind.shape)
    weight = np.round(random.dirichlet([1, 1, 1], 16).T * 2**16).astype(np.float32) / 2**16
    weight[2] = 1 - weight[0] - weight[1]
    share = random.uniform(0, 1, 16).astype(np.float32)
    kind[:, 0] = Kind.IDENTITY
    chains = Chains(*map(jnp.asarray, (kind, amount, weight, share, np.ones(16, bool))))
    found = np.asarray(jax.jit(lambda x: mix_chains(x, chains, SEEN.fill))(IMAGES))
    np.testing.assert_array_equal(found[0], IMAGES[0])  # the mean of what was not changed is what it was
    for i in range(16):
        mixed = np.zeros(IMAGES.shape[1:], np.float32)
        for chain in range(3):
            image = Image.fromarray(IMAGES[i])
            for op, strength in zip(kind[chain, i], amount[chain, i], strict=True):
                image = ON_PIXELS[op](image, strength)
            mixed += weight[chain, i] * np.asarray(image, np.float32)
        mixed = Image.fromarray(np.clip(mixed, 0, 255).astype(np.uint8))
        np.testing.assert_array_equal(found[i], Image.blend(Image.fromarray(IMAGES[i]), mixed, float(share[i])))


def test_ops_depths_weights_and_shares_are_drawn_as_timms():
    op = AugMix(probability=0.8).bind(SEEN)
    chains = jax.tree.map(np.asarray, jax.jit(lambda keys: op.draw(keys, 12, 10))(keys(4000)))
    first = chains.kind[:, :, 0]
    counts = np.unique(first, return_counts=True)[1]
    assert len(counts) == 13
    np.testing.assert_allclose(counts / first.size, 1 / 13, atol=0.013)  # 5 standard deviations
    depth = (chains.kind != Kind.IDENTITY).sum(-1)
    np.testing.assert_allclose(
        np.bincount(depth.ravel(), minlength=4) / first.size, [0, 1 / 3, 1 / 3, 1 / 3], atol=0.022
    )
    np.testing.assert_allclose(chains.weight.sum(0), 1, atol=1e-6)
    np.testing.assert_allclose(chains.weight.mean(1), 1 / 3, atol=0.02)
    assert chains.weight.std() == pytest.approx(np.sqrt(1 / 18), abs=0.01)  # Dirichlet(1, 1, 1)
    assert chains.share.mean() == pytest.approx(0.5, abs=0.023)
    assert chains.share.std() == pytest.approx(np.sqrt(1 / 12), abs=0.01)
    assert chains.changed.mean() == pytest.approx(0.8, abs=0.032)
    turned = chains.amount[chains.kind == Kind.ROTATE]
    assert np.abs(turned).max() == pytest.approx(9, abs=0.1)  # degrees: 3 tenths of 30
    assert np.mean(turned > 0) == pytest.approx(0.5, abs=0.1)


def test_augmix_is_a_function_of_seed_epoch_and_index():
    op = jax.jit(AugMix(probability=0.8, depth=1, width=2).bind(SEEN).__call__)
    first, order = np.asarray(op(keys(16), IMAGES)), np.random.default_rng(0).permutation(16)
    np.testing.assert_array_equal(op(jax.tree.map(lambda x: x[order], keys(16)), IMAGES[order]), first[order])
    assert not np.array_equal(first, op(keys(16, epoch=1), IMAGES))
    assert AugMix().bind(SEEN) is None
