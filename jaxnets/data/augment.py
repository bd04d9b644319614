"""Random changes to training images, on the device."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int32, UInt8

from jaxnets.data.batch import Batch


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """Pad-and-crop and mirroring (He et al. 2016a, section 4.2)."""

    crop_padding: int = 0  # pixels
    flip: bool = False

    def __call__(self, batch: Batch, seed: int) -> UInt8[Array, "b h w c"]:
        """Returns the batch's images changed, each by a draw from (seed, epoch, index)."""
        image = batch.image
        if not (self.crop_padding or self.flip):
            return image
        numbers = jax.vmap(lambda epoch, index: _draw(seed, epoch, index))(batch.epoch, batch.index)
        if self.crop_padding:
            image = _crop(image, numbers[:, :2] % (2 * self.crop_padding + 1), self.crop_padding)
        if self.flip:
            image = jnp.where((numbers[:, 2] % 2 == 1)[:, None, None, None], image[:, :, ::-1], image)
        return image


def _draw(seed: int, epoch: Int32[Array, ""], index: Int32[Array, ""]) -> Int32[Array, "3"]:
    key = jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), epoch), index)
    return jax.random.randint(key, (3,), 0, jnp.iinfo(jnp.int32).max, jnp.int32)


def _crop(image: UInt8[Array, "b h w c"], corner: Int32[Array, "b 2"], padding: int) -> UInt8[Array, "b h w c"]:
    """Cuts each image's own size out of itself padded with black, at `corner` (row, column)."""
    padded = jnp.pad(image, ((0, 0), (padding, padding), (padding, padding), (0, 0)))
    shape = image.shape[1:]
    return jax.vmap(lambda x, at: jax.lax.dynamic_slice(x, (at[0], at[1], jnp.zeros_like(at[0])), shape))(
        padded, corner
    )
