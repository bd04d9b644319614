"""The boxes that the host cuts out of training images: those that the device would cut out of their canvases."""

from collections.abc import Sequence

import jax
import numpy as np
from jaxtyping import Int32

from jaxnets.data.boxes import Box, Boxes, BoxOf
from jaxnets.recipe.augment.cut import Cut
from jaxnets.recipe.augment.op import keys_of
from jaxnets.recipe.augment.random_resized_crop import HostCut, RandomCut


def make_boxes(cut: Cut | None, number: int, seed: int) -> Boxes | None:
    """Returns the boxes of each batch; None where the host cuts nothing. `number` is that of the cut's keys."""
    if not isinstance(cut, HostCut):
        return None
    random = cut.random

    @jax.jit
    def draws(index: jax.Array, epoch: jax.Array) -> tuple[jax.Array, jax.Array]:
        return random.draws(keys_of(number, seed=seed, epoch=epoch, index=index))

    # Beside the steps, and not behind them, where there is another device than the host.
    try:
        host = jax.local_devices(backend="cpu")[0]
    except RuntimeError:  # JAX was told to see none
        host = None

    def boxes(index: Int32[np.ndarray, " b"], epoch: Int32[np.ndarray, " b"]) -> Sequence[BoxOf]:
        with jax.default_device(host):
            numbers, bicubic = jax.device_get(draws(index, epoch))
        return [_box_of(random, row, cubic) for row, cubic in zip(numbers.tolist(), bicubic.tolist(), strict=True)]

    return boxes


def _box_of(random: RandomCut, numbers: Sequence[float], bicubic: bool) -> BoxOf:
    return lambda aspect: Box(*random.box(numbers, aspect), bicubic)
