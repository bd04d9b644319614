"""Examples mixed with one another, and their targets with them."""

import math
from dataclasses import dataclass
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Float32, Int32, Key, UInt8

from jaxnets.recipe.augment.box import around, covered
from jaxnets.schema import NonNegative, Positive, ZeroToOne

Mode = Literal["batch", "pair", "element", "automl"]
_GRID = 2**16  # shares are multiples of 1 / _GRID, of which float32 holds every product with 0 … 255 exactly


@dataclass(frozen=True, kw_only=True)
class MixConfig:
    """What is mixed; the images of a batch are partners from its two ends inwards, the first with the last."""

    mixup: NonNegative = 0.0  # α of the Beta distribution that mixup's share is drawn from; 0: no mixup
    cutmix: NonNegative = 0.0  # α of the Beta distribution that cutmix's share is drawn from; 0: no cutmix
    probability: ZeroToOne = 1.0  # that a batch is mixed, or a pair or an image, whatever is drawn for
    switch: ZeroToOne = 0.5  # where both are given: probability of cutmix, in place of mixup
    # What one draw is for, as timm's modes; automl: for each image as google/automl draws for EfficientNetV2, where
    # mixup keeps at least half of an image, and where both are given the second half of the batch is cut.
    mode: Mode = "batch"
    until_epoch: Positive | None = None  # epochs, from which on nothing is mixed; None: the whole run is


class Draw(NamedTuple):
    """What is drawn for a batch, a pair or an image: n of them."""

    share: Float32[Array, " n"]  # λ, kept of an image
    cut: Bool[Array, " n"]  # by cutmix, not mixup
    row: Int32[Array, " n"]  # of the middle of cutmix's box
    column: Int32[Array, " n"]


@dataclass(frozen=True, kw_only=True)
class Mix:
    """mixup (Zhang et al. 2018) and cutmix (Yun et al. 2019), as timm's `Mixup` mixes, on uint8 images.

    mixup makes λ · x + (1 − λ) · x′ of an image and its partner, rounded, and cutmix puts a box of x′ into x; λ is
    drawn from Beta(α, α), and the same share of both targets makes the new one. A box has the sides √(1 − λ) of the
    image's, rounded down, and its middle lies anywhere, so that the border may clip it: λ becomes what it leaves.

    Whatever is drawn costs the same, and no draw needs the batch to be even: the one in the middle of an odd batch is
    its own partner and stays as it is.

    In mode `automl`, λ of mixup is max(λ, 1 − λ), the sides of a box are even, and with both the halves of the batch
    have their partners in themselves.
    """

    mixup: float = 0.0  # α, 0: none
    cutmix: float = 0.0  # likewise; one of them is above 0
    probability: float = 1.0
    switch: float = 0.5
    mode: Mode = "batch"
    until_step: int | None = None  # steps done, from which on nothing is mixed

    def __call__(
        self,
        key: Key[Array, ""],
        step: Int32[Array, ""] | int,
        images: UInt8[Array, "b h w c"],
        target: Float[Array, "b classes"],
    ) -> tuple[UInt8[Array, "b h w c"], Float[Array, "b classes"]]:
        """Returns the images and targets that the step before which `step` are done is trained on."""
        draw = self.draw(key, *images.shape[:3])
        if self.until_step is not None:
            draw = draw._replace(share=jnp.where(step < self.until_step, draw.share, 1))
        return self.mix(draw, images, target)

    def draw(self, key: Key[Array, ""], size: int, height: int, width: int) -> Draw:
        """Returns what is drawn for a batch of so many images of these pixels."""
        count = {"batch": 1, "pair": (size + 1) // 2}.get(self.mode, size)
        chance, which, share, row, column = jax.random.split(key, 5)
        if not (self.mixup and self.cutmix):
            cut = jnp.full(count, self.cutmix > 0)
        elif self.mode == "automl":
            cut = jnp.arange(size) >= size // 2
        else:
            cut = jax.random.uniform(which, (count,), jnp.float32) < self.switch
        kept = _beta(share, jnp.where(cut, jnp.float32(self.cutmix), jnp.float32(self.mixup)))
        if self.mode == "automl":
            kept = jnp.where(cut, kept, jnp.maximum(kept, 1 - kept))
        mixed = jax.random.uniform(chance, (count,), jnp.float32) < self.probability
        return Draw(
            share=jnp.where(mixed, kept, 1),
            cut=cut,
            row=jax.random.randint(row, (count,), 0, height, jnp.int32),
            column=jax.random.randint(column, (count,), 0, width, jnp.int32),
        )

    def mix(
        self, draw: Draw, images: UInt8[Array, "b h w c"], target: Float[Array, "b classes"]
    ) -> tuple[UInt8[Array, "b h w c"], Float[Array, "b classes"]]:
        """Returns the images and targets mixed as it was drawn."""
        size, height, width = images.shape[:3]
        own, share = self._weights(draw, height, width)
        if self.mode == "pair":  # both of a pair have the same
            own, share = (jnp.concatenate([x, x[: size // 2][::-1]]) for x in (own, share))
        levels, partners = images.astype(jnp.float32), self._partners(images).astype(jnp.float32)
        mixed = jnp.round(own * levels + (1 - own) * partners).astype(jnp.uint8)
        share = share[:, None].astype(target.dtype)
        return mixed, share * target + (1 - share) * self._partners(target)

    def _weights(self, draw: Draw, height: int, width: int) -> tuple[Float32[Array, "n _ _ 1"], Float32[Array, " n"]]:
        """Returns the weights of an image's own pixels and its share of the target, for each draw."""
        own = draw.share[:, None, None]
        if self.cutmix:
            boxed = box_of(draw, height, width, even=self.mode == "automl")
            left = 1 - boxed.sum((1, 2), dtype=jnp.float32) / (height * width)
            own = jnp.where(draw.cut[:, None, None], 1 - boxed.astype(jnp.float32), own)
            draw = draw._replace(share=jnp.where(draw.cut, left, draw.share))
        return own[..., None], draw.share

    def _partners(self, x: Array) -> Array:
        """Returns the partner of each."""
        if self.mode == "automl" and self.mixup and self.cutmix:
            half = len(x) // 2
            return jnp.concatenate([x[:half][::-1], x[half:][::-1]])
        return x[::-1]


def make_mix(spec: MixConfig, steps_per_epoch: float) -> Mix | None:
    """Returns what a config mixes by; None for nothing."""
    if not (spec.mixup or spec.cutmix):
        return None
    # A batch belongs to where it begins; ten epochs of 33.3 steps are not 333.0000001.
    until = None if spec.until_epoch is None else math.ceil(spec.until_epoch * steps_per_epoch - 1e-6)
    return Mix(
        mixup=spec.mixup,
        cutmix=spec.cutmix,
        probability=spec.probability,
        switch=spec.switch,
        mode=spec.mode,
        until_step=until,
    )


def box_of(draw: Draw, height: int, width: int, *, even: bool = False) -> Bool[Array, "n {height} {width}"]:
    """Returns the pixels of each box that cutmix takes from the partner; `even`: its sides are rounded down to that."""
    side = jnp.sqrt(1 - draw.share)
    tall, wide = (jnp.floor(pixels * side).astype(jnp.int32) for pixels in (height, width))
    if even:
        tall, wide = tall // 2 * 2, wide // 2 * 2
    return covered(*around(draw.row, tall, height), *around(draw.column, wide, width), height, width)


def _beta(key: Key[Array, ""], alpha: Float32[Array, " n"]) -> Float32[Array, " n"]:
    """Returns shares drawn from Beta(α, α), on the grid on which uint8 images are mixed exactly.

    From the logarithms of two gammas, as `jax.random.beta` does, whose two programs take twice as long to compile.
    """
    gamma = jax.random.loggamma(key, alpha, (2, *alpha.shape), jnp.float32)
    return jnp.round(jax.nn.sigmoid(gamma[0] - gamma[1]) * _GRID) / _GRID
