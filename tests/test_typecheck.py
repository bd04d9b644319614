"""That annotations and dtypes are checked in every test: see tests/conftest.py."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import TypeCheckError

from jaxnets.metrics.metric import figures_of
from jaxnets.models.layers import BatchNorm
from jaxnets.recipe.augment.cut import cut_out

BOX = np.array([[0, 0, 4, 4]], np.float32)


@pytest.mark.parametrize("xp", [np, jnp])
def test_a_wrong_shape_or_dtype_is_refused_from_numpy_and_from_jax(xp):
    canvas = xp.zeros((1, 4, 4, 3), np.uint8)
    assert cut_out(canvas, xp.asarray(BOX), 2, 2).shape == (1, 2, 2, 3)
    with pytest.raises(TypeCheckError, match="canvas"):
        cut_out(canvas[0], xp.asarray(BOX), 2, 2)
    with pytest.raises(TypeCheckError, match="canvas"):
        cut_out(canvas.astype(np.float32), xp.asarray(BOX), 2, 2)
    with pytest.raises(TypeCheckError, match="box"):
        cut_out(canvas, xp.zeros((2, 4), np.float32), 2, 2)


def test_methods_of_modules_and_what_stands_in_mappings_are_checked_too():
    with pytest.raises(TypeCheckError):
        jax.eval_shape(lambda: BatchNorm(train=False).init(jax.random.key(0), jnp.zeros((1, 4, 4))))
    with pytest.raises(TypeCheckError):
        figures_of([], {"count": 3})


def test_dtypes_are_not_promoted_by_accident():
    with pytest.raises(jax.dtypes.TypePromotionError):
        jnp.zeros(3) + jnp.zeros(3, jnp.int32)
