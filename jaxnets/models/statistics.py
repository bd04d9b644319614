"""How many values a batch normalisation averages over, and what is said where they are too few."""

from collections.abc import Iterable
from typing import NamedTuple

from jaxnets.errors import UserError

_FEW = 16  # values of a channel, below which mean and variance are mostly noise

_REMEDY = (
    "give it more images at a time (a larger config.batch_size or config.batch_norm.group_size, fewer "
    "config.accumulate_steps), larger images (config.data.image_size), or a network that halves them less often"
)


class Norm(NamedTuple):
    """A batch normalisation, and the pixels of each image that it averages over."""

    layer: str
    height: int
    width: int


def require_statistics(norm: Norm, images: int) -> None:
    """Refuses a norm that would see one value of each channel, in groups of so many images.

    Less its own mean that is 0 whatever the image: training goes on with the rest of the network, and evaluation, where
    the running statistics come in, has learned nothing.

    Raises:
        UserError: with the layer, what it sees and the remedy.
    """
    if images * norm.height * norm.width == 1:
        raise UserError(
            f"the norm {norm.layer} would see one value of each channel while training (1 image of 1×1 pixels), which "
            f"less its own mean is 0 whatever the image: {_REMEDY}"
        )


def check_statistics(norms: Iterable[Norm], images: int) -> str | None:
    """Returns a warning if a network's norms see few values of each channel in groups of so many images.

    Raises:
        UserError: if one of them sees a single one.
    """
    fewest = min(norms, key=lambda norm: norm.height * norm.width, default=None)
    if fewest is None:
        return None
    require_statistics(fewest, images)
    values = images * fewest.height * fewest.width
    if values >= _FEW:
        return None
    return (
        f"the norm {fewest.layer} sees {values} values of each channel while training ({images} "
        f"{'image' if images == 1 else 'images'} of {fewest.height}×{fewest.width} pixels); below {_FEW}, mean and "
        f"variance are mostly noise, and evaluation may be far from training: {_REMEDY}"
    )
