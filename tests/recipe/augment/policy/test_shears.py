from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnets.recipe.augment.policy.layer import Kind, Layer
from jaxnets.recipe.augment.policy.points import sources
from jaxnets.recipe.augment.policy.shears import sample_by_shears
from jaxnets.recipe.augment.policy.warp import sample_by_gathering

# The strongest that the policies draw, of one op or of two: degrees, shear, and share of a side that images are moved.
STRONGEST = {
    "magnitude 10": (30.0, 0.3, 0.45, 2),
    "timm's magnitude 20": (60.0, 0.6, 0.9, 2),
    "TensorFlow's magnitude 30": (90.0, 0.9, 1.34, 2),
    "TrivialAugment": (135.0, 0.99, 0.15, 1),
}
OPS = (Kind.IDENTITY, Kind.SHEAR_X, Kind.SHEAR_Y, Kind.TRANSLATE_X, Kind.TRANSLATE_Y, Kind.ROTATE)


@partial(jax.jit, static_argnames=("rounded", "corner"))
def both(images, layers, rounded, corner=0.5):
    """Returns the images sampled in both forms, and which pixels come from within them."""
    b, height, width, _ = images.shape

    def points(y, x, *, rounded=rounded):
        return sources(layers, y, x, height, width, corner=corner, rounded=rounded)

    grids = (jnp.broadcast_to(grid, (b, height, width)) for grid in jnp.mgrid[:height, :width].astype(jnp.float32))
    y, x, covered = points(*grids)
    return sample_by_gathering(images, y, x), sample_by_shears(images, points, rounded=rounded), covered


def strengths(height: int, width: int) -> list[Layer]:
    """Returns all pairs of ops at their strongest, both ways, and as many at random strengths."""
    random = np.random.default_rng(0)
    kinds, amounts = [], []
    for turn, shear, moved, ops in STRONGEST.values():
        most = dict(zip(OPS, (0.0, shear, shear, moved * width, moved * height, turn), strict=True))
        for first in OPS:
            for second in OPS if ops == 2 else OPS[:1]:
                kinds += [(first, second)] * 8
                signs = [(a, b) for a in (-0.999, 0.999) for b in (-0.999, 0.999)]  # short of what lies just between
                shares = np.concatenate([signs, random.uniform(-1, 1, (4, 2))])
                amounts += [(most[first] * a, most[second] * b) for a, b in shares]
    return [Layer(*both) for both in zip(np.array(kinds, np.int32).T, np.array(amounts, np.float32).T, strict=True)]


@pytest.mark.parametrize(("shape", "rounded"), [((10, 17, 1), False), ((15, 11, 2), True)])
def test_shears_take_what_a_gather_takes_whatever_is_drawn(shape, rounded):
    layers = strengths(*shape[:2])
    images = np.random.default_rng(1).integers(0, 256, (len(layers[0].kind), *shape), np.uint8)
    gathered, sheared, covered = (np.asarray(x) for x in both(images, layers, rounded, 0.0 if rounded else 0.5))
    difference = np.abs(gathered.astype(int) - sheared)[covered]
    assert covered.mean() > 0.3
    assert difference.max() <= (0 if rounded else 1)  # a blend's last bit may be below a whole level
    assert (difference > 0).mean() < 0.002


@pytest.mark.slow
def test_a_large_image_arrives_whole():
    layers = [
        Layer(np.array([Kind.ROTATE, Kind.SHEAR_Y, Kind.ROTATE], np.int32), np.array(amounts, np.float32))
        for amounts in ([29.3, 0.28, -30], [16, -0.1, -14.7])
    ]
    images = np.random.default_rng(1).integers(0, 256, (3, 128, 128, 1), np.uint8)  # slopes have as many bits as at 224
    gathered, sheared, covered = (np.asarray(x) for x in both(images, layers, False))
    difference = np.abs(gathered.astype(int) - sheared)[covered]
    assert difference.max() <= 1
    assert (difference > 0).mean() < 1e-3
