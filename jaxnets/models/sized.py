"""Layers that say themselves how many parameters they have, and what they cost."""

from typing import Any

from flax import linen as nn


class Sized(nn.Module):
    """A layer that `describe` need not trace, nor know."""

    def sized(self, *args: Any) -> tuple[int, int, Any]:
        """Returns its parameters, its multiply-adds for these arguments, and zeros of the shape that it gives."""
        raise NotImplementedError
