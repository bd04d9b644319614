"""From the training canvas, the whole image squeezed to one size, to images of the model's size."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Float32, UInt8

from jaxnets.preprocess import Preprocess


@dataclass(frozen=True, kw_only=True)
class CentreCut:
    """Cuts out what evaluation sees: the centre crop of the image in its own geometry, whatever the canvas made of it.

    Where the aspect is kept, one of the original's sides is resized to `rows` or `columns` and the other is as long or
    longer, and the crop of `height` × `width` pixels is from the middle of that.
    """

    height: int  # pixels, of what is cut out
    width: int
    rows: int  # pixels that an image of the model's own aspect is resized to, before the crop
    columns: int
    keep_aspect: bool

    @classmethod
    def of(cls, preprocess: Preprocess) -> "CentreCut":
        """Returns the cut whose images are those of `preprocess.fit`."""
        p = preprocess
        rows, columns = p.resized_sides
        return cls(height=p.height, width=p.width, rows=rows, columns=columns, keep_aspect=p.keep_aspect)

    def __call__(
        self, canvas: UInt8[Array, "b s t c"], aspect: Float32[Array, " b"]
    ) -> UInt8[Array, "b {self.height} {self.width} c"]:
        """Returns the crops; `aspect` is width / height of each original."""
        tall, wide = canvas.shape[1:3]
        relative = aspect * (self.rows / self.columns) if self.keep_aspect else jnp.ones_like(aspect)
        down = self.height / self.rows * jnp.minimum(1, relative)  # shares of the original's sides that are kept
        across = self.width / self.columns * jnp.minimum(1, 1 / relative)
        box = jnp.stack([(1 - down) / 2 * tall, (1 - across) / 2 * wide, down * tall, across * wide], -1)
        return cut_out(canvas, box, self.height, self.width)


def cut_out(
    canvas: UInt8[Array, "b s t c"], box: Float[Array, "b 4"], height: int, width: int
) -> UInt8[Array, "b {height} {width} c"]:
    """Returns each image's box (top, left, height, width in canvas pixels) resized to one size.

    Antialiased and bilinear, as Pillow resizes: across and down are one product each, so that every box costs the same.
    """
    rows = jax.vmap(lambda b: interpolation(b[0], b[2], canvas.shape[1], height))(box)
    columns = jax.vmap(lambda b: interpolation(b[1], b[3], canvas.shape[2], width))(box)
    across = jnp.einsum("bjt,bstc->bsjc", columns, canvas.astype(jnp.float32))
    cut = jnp.einsum("bis,bsjc->bijc", rows, across)
    return jnp.clip(jnp.round(cut), 0, 255).astype(jnp.uint8)


def interpolation(
    start: Float[Array, ""], length: Float[Array, ""], pixels: int, count: int
) -> Float32[Array, "{count} {pixels}"]:
    """Returns the matrix that takes a side's `pixels` to `count` pixels of the stretch from `start` on.

    A triangle of the width of two output pixels, of two input pixels where the stretch is enlarged, stands over each
    output pixel's centre; its weights add up to 1 over the pixels that there are.
    """
    scale = length / count
    centres = start + (jnp.arange(count, dtype=jnp.float32) + 0.5) * scale
    distance = jnp.abs(jnp.arange(pixels, dtype=jnp.float32) + 0.5 - centres[:, None]) / jnp.maximum(scale, 1)
    weights = jnp.maximum(1 - distance, 0)
    return weights / weights.sum(-1, keepdims=True)
