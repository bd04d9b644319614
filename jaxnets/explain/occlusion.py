"""Occlusion (Zeiler & Fergus 2014, section 4.2): what a class's score loses when a patch of the image is covered."""

from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax import lax
from jaxtyping import Array, Int

from jaxnets.explain.cam import Explain
from jaxnets.explain.score import at_once, normalised, scores
from jaxnets.preprocess import Preprocess

_PATCHES = 7  # side by side along a side of the image


def make_occlusion(
    model: nn.Module, preprocess: Preprocess, *, patch: int | None = None, stride: int | None = None
) -> Explain:
    """Returns a function that gives each pixel the average loss of the score, in logits, of the patches that cover it.

    Positive where covering lowers the score: what is there speaks for the class. A patch has the mean colour. Patches
    reach over the borders, so that where the stride divides the patch as many cover each pixel.

    Args:
        patch: its side in pixels of the model's input; None for a seventh of the shorter side.
        stride: pixels from patch to patch; None for half of one.

    Raises:
        ValueError: if the stride is longer than the patch: some pixels would never be covered.
    """
    height, width = preprocess.height, preprocess.width
    patch = patch or max(round(min(height, width) / _PATCHES), 1)
    stride = stride or max(patch // 2, 1)
    if stride > patch:
        raise ValueError(f"a stride of at most the patch is expected, found {stride} for {patch}")
    corners = _corners(height, width, patch, stride)
    rows, columns = (_inside(corners[:, axis], side, patch).astype(int) for axis, side in enumerate((height, width)))
    covered = rows.T @ columns  # by how many patches each pixel is

    def explain(variables: Any, images: Array, labels: Array) -> Array:
        x = normalised(model, preprocess, images)
        count = at_once(len(images), 8)
        # Filled up with patches that cover nothing.
        missing = -len(corners) % count
        all_corners = np.concatenate([corners, np.full((missing, 2), -patch, corners.dtype)])
        before = scores(model, variables, x, labels)

        def add(total: Array, some: Array) -> tuple[Array, None]:
            rows, columns = (_inside(some[:, axis], side, patch) for axis, side in enumerate((height, width)))
            hidden = rows[:, :, None] & columns[:, None]  # [n, h, w]
            flat = jnp.where(hidden[:, None, :, :, None], 0, x).reshape(-1, *x.shape[1:])
            after = scores(model, variables, flat, jnp.tile(labels, count)).reshape(count, -1)
            lost = (before - after).astype(x.dtype)
            change = jnp.einsum("nb,nhw->bhw", lost, hidden.astype(x.dtype), precision=lax.Precision.HIGHEST)
            return total + change, None

        total, _ = lax.scan(add, jnp.zeros(x.shape[:3], x.dtype), jnp.asarray(all_corners.reshape(-1, count, 2)))
        return total / jnp.asarray(covered, x.dtype)

    return explain


def _corners(height: int, width: int, patch: int, stride: int) -> Int[np.ndarray, "n 2"]:
    """Returns the top left corners of all patches, the first of which show one stride of themselves."""
    tops, lefts = (np.arange(stride - patch, side, stride, dtype=np.int32) for side in (height, width))
    return np.stack(np.meshgrid(tops, lefts, indexing="ij"), -1).reshape(-1, 2)


def _inside(starts: Int[Array | np.ndarray, " n"], length: int, patch: int) -> Any:
    """Returns of each patch which of so many pixels lie in it, along one side of the image; bool `[n, length]`."""
    place = np.arange(length, dtype=np.int32)
    return (place >= starts[:, None]) & (place < starts[:, None] + patch)
