"""Where each of our parameters lies in the files of other libraries, by what each family says of them.

A layout says, for one of our parameters, which key holds it there. Conversion walks over our parameters, so that none
can be forgotten, and the same map read backwards writes files.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from jaxnets.errors import UserError
from jaxnets.models.conv import plain_convolutions
from jaxnets.models.family import Family, Layout, Path
from jaxnets.models.registry import FAMILIES

MARKS = frozenset(layout.mark for family in FAMILIES for layout in family.layouts)  # keys that tell layouts


@dataclass(frozen=True)
class Slot:
    """Where one of our arrays lies in a layout."""

    collection: str  # params or batch_stats
    path: Path
    key: str
    shape: tuple[int, ...]  # ours
    as_convolution: bool  # a dense layer that is a 1×1 convolution there
    stored_shape: tuple[int, ...] | None = None  # there, where the layout says it: the numbers lie in the same order

    @property
    def foreign_shape(self) -> tuple[int, ...]:
        if self.stored_shape is not None:
            return self.stored_shape
        if len(self.shape) == 4:  # [i, j, c, f] here, [f, c, i, j] there
            return (self.shape[3], self.shape[2], self.shape[0], self.shape[1])
        if len(self.shape) == 2:  # [c, f] here, [f, c] there
            return (self.shape[1], self.shape[0], *((1, 1) if self.as_convolution else ()))
        return self.shape

    def to_ours(self, array: np.ndarray) -> np.ndarray:
        if self.stored_shape is not None:
            return array.reshape(self.shape)
        if len(self.shape) == 4:
            return array.transpose(2, 3, 1, 0)
        return array.reshape(self.shape[::-1]).T if len(self.shape) == 2 else array

    def to_foreign(self, array: np.ndarray) -> np.ndarray:
        if self.stored_shape is not None:
            return array.reshape(self.stored_shape)
        if len(self.shape) == 4:
            return array.transpose(3, 2, 0, 1)
        return array.T.reshape(self.foreign_shape) if len(self.shape) == 2 else array


def recognise(keys: Iterable[str], description: str) -> list[tuple[Family, Layout]]:
    """Returns the families and layouts that a file's keys can belong to.

    Raises:
        UserError: if there is none.
    """
    keys = set(keys)
    known = [(family, layout) for family in FAMILIES for layout in family.layouts]
    found = [(family, layout) for family, layout in known if layout.mark in keys]
    if not found:
        raise UserError(
            f"the keys of {description} ({', '.join(sorted(keys)[:3])}, …) belong to no layout that is known: "
            f"{', '.join(sorted({f'{layout.name} ({family.network.__name__})' for family, layout in known}))}"
        )
    return found


def slots(layout: Layout, model: nn.Module, channels: int) -> list[Slot]:
    """Returns where in `layout` lies each of the model's arrays, for images of `channels`."""
    with plain_convolutions():
        shapes: Any = jax.eval_shape(
            lambda: model.init(jax.random.key(0), jnp.zeros((1, 64, 64, channels), jnp.float32), train=False)
        )
    return list(_slots(layout, model, shapes))


def _slots(layout: Layout, model: nn.Module, variables: Mapping[str, Any]) -> Iterator[Slot]:
    for collection in ("params", "batch_stats"):
        for keys, leaf in jax.tree_util.tree_leaves_with_path(variables.get(collection, {})):
            path = tuple(key.key for key in keys)
            if stored := layout.parameter(model, path, leaf.shape):
                yield Slot(collection, path, stored.key, leaf.shape, False, stored.shape)
                continue
            as_convolution = layout.is_convolution(model, path[:-1])
            key = f"{layout.module_key(model, path[:-1])}.{_LEAVES[path[-1]]}"
            yield Slot(collection, path, key, leaf.shape, as_convolution)


_LEAVES = {
    "kernel": "weight",
    "scale": "weight",
    "bias": "bias",
    "mean": "running_mean",
    "var": "running_var",
}
