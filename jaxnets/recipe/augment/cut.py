"""From the training canvas, the whole image squeezed to one size, to images of the size that is trained at."""

from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Float32, UInt8

from jaxnets.preprocess import Fitting, Preprocess
from jaxnets.recipe.augment.flip import Flip, Mirrored
from jaxnets.recipe.augment.op import Keys

Filter = Literal["bilinear", "bicubic", "random"]  # random: for each image one of the two, as timm does


@runtime_checkable
class Cut(Protocol):
    """What brings canvases to the size that is trained at, mirrored on the way where it has a flip."""

    @property
    def flip(self) -> Flip | None: ...
    def __call__(
        self, keys: Keys, canvas: UInt8[Array, "b s t c"], aspect: Float32[Array, " b"]
    ) -> UInt8[Array, "b h w c"]:
        """Returns the images; `aspect` is width / height of each original."""
        ...


@dataclass(frozen=True, kw_only=True)
class CentreCut:
    """Cuts out what evaluation sees of the image in its own geometry, whatever the canvas made of it.

    Where the aspect is kept, one of the original's sides is resized to `rows` or `columns` and the other is as long or
    longer (crop), or as long or shorter (pad); `height` × `width` pixels are from the middle of that.
    """

    height: int  # pixels, of what is cut out
    width: int
    rows: int  # pixels that an image of the model's own aspect is resized to, before the crop
    columns: int
    fitting: Fitting
    fill: tuple[int, ...]  # colour of what a padded image does not cover
    filter: Filter = "bilinear"
    flip: Flip | None = None

    @classmethod
    def of(cls, preprocess: Preprocess, flip: Flip | None = None) -> "CentreCut":
        """Returns the cut whose images are those of `preprocess.fit`."""
        p = preprocess
        rows, columns = p.resized_sides
        return cls(
            height=p.height,
            width=p.width,
            rows=rows,
            columns=columns,
            fitting=p.fitting,
            fill=p.fill,
            filter=filter_of(p),
            flip=flip,
        )

    def __call__(
        self, keys: Keys, canvas: UInt8[Array, "b s t c"], aspect: Float32[Array, " b"]
    ) -> UInt8[Array, "b {self.height} {self.width} c"]:
        relative = aspect * (self.rows / self.columns)  # above 1: wider than the model's input
        if self.fitting == "squeeze":
            relative = jnp.ones_like(relative)
        within = jnp.maximum if self.fitting == "pad" else jnp.minimum
        # Shares of the original's sides that are kept; more than 1 where it is padded.
        down = self.height / self.rows * within(1.0, relative)
        across = self.width / self.columns * within(1.0, 1 / relative)
        box = jnp.stack([(1 - down) / 2, (1 - across) / 2, down, across], -1)
        mirrored = self.flip.draw(keys.fold(0)) if self.flip else None
        bicubic = drawn_filter(self.filter, keys.fold(1))
        fill = self.fill if self.fitting == "pad" else None
        return cut_out(canvas, box, self.height, self.width, bicubic=bicubic, mirrored=mirrored, fill=fill)


def filter_of(preprocess: Preprocess) -> Filter:
    """Returns which of the two filters is nearest to evaluation's."""
    return "bicubic" if preprocess.interpolation in ("bicubic", "lanczos") else "bilinear"


def drawn_filter(named: Filter, keys: Keys) -> Bool[Array, " b"] | bool:
    """Returns whether each image is resized bicubically."""
    if named != "random":
        return named == "bicubic"
    return jax.vmap(jax.random.bernoulli)(keys.each_epoch)


def cut_out(
    canvas: UInt8[Array, "b s t c"],
    box: Float[Array, "b 4"],
    height: int,
    width: int,
    *,
    bicubic: Bool[Array, " b"] | bool = False,
    mirrored: Mirrored | None = None,
    fill: tuple[int, ...] | None = None,
) -> UInt8[Array, "b {height} {width} c"]:
    """Returns each image's box resized to one size.

    Antialiased, as Pillow resizes with `box` and BILINEAR or BICUBIC: across, then down, each rounded to whole levels,
    so that the second product's factors are exact in bfloat16 too. Both are one product for each image, whatever its
    box: every box costs the same.

    Args:
        canvas: whole images.
        box: top, left, height and width as shares of the canvas.
        height: pixels of the results.
        width: likewise.
        bicubic: with Keys' kernel (1981, equation 4, a = −1/2) in place of the triangle.
        mirrored: which results are mirrored.
        fill: colour where a box reaches beyond the canvas; by default its nearest pixels are repeated there.
    """
    flips = mirrored or Mirrored(*[jnp.zeros(len(canvas), bool)] * 2)
    cubic = jnp.broadcast_to(bicubic, len(canvas))
    tall, wide = canvas.shape[1:3]
    rows = jax.vmap(lambda b, *how: interpolation(b[0] * tall, b[2] * tall, tall, height, *how))
    columns = jax.vmap(lambda b, *how: interpolation(b[1] * wide, b[3] * wide, wide, width, *how))
    down, across = rows(box, cubic, flips.vertically), columns(box, cubic, flips.horizontally)
    cut = _levels(jnp.einsum("bjt,bstc->bsjc", across.weights, canvas.astype(jnp.float32)))
    cut = _levels(jnp.einsum("bis,bsjc->bijc", down.weights, cut)).astype(jnp.uint8)
    if fill is None:
        return cut
    inside = down.inside[:, :, None, None] & across.inside[:, None, :, None]
    return jnp.where(inside, cut, jnp.asarray(fill, jnp.uint8))


def _levels(x: Float32[Array, "..."]) -> Float32[Array, "..."]:
    return jnp.clip(jnp.round(x), 0, 255)


class Interpolation(NamedTuple):
    weights: Float32[Array, "count pixels"]
    inside: Bool[Array, " count"]  # whose centre is not beyond the pixels


def interpolation(
    start: Float[Array, ""],
    length: Float[Array, ""],
    pixels: int,
    count: int,
    bicubic: Bool[Array, ""] | bool = False,
    mirrored: Bool[Array, ""] | bool = False,
) -> Interpolation:
    """Returns the matrix that takes a side's `pixels` to `count` pixels of the stretch from `start` on.

    A triangle of the width of two output pixels, or a cubic of four, of input pixels where the stretch is enlarged,
    stands over each output pixel's centre; its weights add up to 1 over the pixels that there are. Mirrored, the last
    comes first.
    """
    scale = length / count
    numbers = jnp.arange(count, dtype=jnp.float32)
    centres = start + (jnp.where(mirrored, count - 1 - numbers, numbers) + 0.5) * scale
    inside = (centres >= 0) & (centres <= pixels)
    distance = jnp.arange(pixels, dtype=jnp.float32) + 0.5 - jnp.clip(centres, 0, pixels)[:, None]
    distance = jnp.abs(distance) / jnp.maximum(scale, 1)
    weights = jnp.where(bicubic, _cubic(distance), jnp.maximum(1 - distance, 0))
    return Interpolation(weights / weights.sum(-1, keepdims=True), inside)


def _cubic(x: Float32[Array, "..."]) -> Float32[Array, "..."]:
    near = (1.5 * x - 2.5) * x * x + 1
    far = ((-0.5 * x + 2.5) * x - 4) * x + 2
    return jnp.where(x < 1, near, jnp.where(x < 2, far, 0))
