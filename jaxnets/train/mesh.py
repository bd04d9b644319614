"""Where arrays live: a mesh of all devices, batches split over it, everything else on each of them."""

import math
from collections.abc import Sequence
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from jaxtyping import Int64

from jaxnets.data.batch import Batch
from jaxnets.errors import UserError

T = TypeVar("T")


def make_mesh(devices: Sequence[jax.Device] | None = None) -> Mesh:
    """Returns a mesh of the devices, by default all, along one axis, `data`."""
    devices = devices or jax.devices()
    return jax.make_mesh((len(devices),), ("data",), axis_types=(AxisType.Auto,), devices=devices)


def over_data(mesh: Mesh, axis: int = 0) -> NamedSharding:
    """Returns the sharding that splits the given axis over the devices."""
    return NamedSharding(mesh, PartitionSpec(*[None] * axis, "data"))


def replicated(mesh: Mesh) -> NamedSharding:
    return NamedSharding(mesh, PartitionSpec())


_WORTH_SPLITTING = 4096  # elements; less costs more to collect than to keep


def state_shardings(shapes: T, mesh: Mesh, *, split: bool) -> T:
    """Returns each array's sharding of a state: a copy on every device, or with `split` a share of it on each.

    An array is split along its longest axis that the devices divide (Rajbhandari et al. 2020, stage 3); XLA collects a
    layer's parameters where they are used. Small arrays stay whole.
    """

    def sharding(x: jax.ShapeDtypeStruct) -> NamedSharding:
        axes = [axis for axis, size in enumerate(x.shape) if size % mesh.size == 0]
        if not split or math.prod(x.shape) < _WORTH_SPLITTING or not axes:
            return replicated(mesh)
        return over_data(mesh, max(axes, key=lambda axis: x.shape[axis]))

    return jax.tree.map(sharding, shapes)


def put(array: np.ndarray, sharding: NamedSharding) -> jax.Array:
    """Returns an array that every process has whole as one over the devices of all."""
    if sharding.is_fully_addressable:
        return jax.device_put(array, sharding)
    return jax.make_array_from_callback(array.shape, sharding, lambda index: array[index])  # a slice per axis


def local_rows(rows: int, mesh: Mesh) -> Int64[np.ndarray, " n"]:
    """Returns which of so many rows over the devices lie on those of this process, ascending."""
    slices = over_data(mesh).addressable_devices_indices_map((rows,)).values()
    everything = np.arange(rows)
    return np.unique(np.concatenate([everything[index] for index in slices]))


def shard_rows(local: T, rows: int, mesh: Mesh) -> T:
    """Returns arrays of `rows` rows over the devices, of which each process gives its `local_rows`."""
    split = over_data(mesh)
    if split.is_fully_addressable:
        return jax.device_put(local, split)
    here = local_rows(rows, mesh)

    def whole(x: np.ndarray) -> jax.Array:
        def share(index: Any) -> np.ndarray:  # a slice for each axis
            first, last, _ = index[0].indices(rows)
            return x[np.searchsorted(here, first) : np.searchsorted(here, last)]

        return jax.make_array_from_callback((rows, *x.shape[1:]), split, share)

    return jax.tree.map(whole, local)


def batch_like(batch_size: int, shape: tuple[int, int, int], mesh: Mesh, several_labels: int | None = None) -> Batch:
    """Returns the shapes and shardings of a batch over the devices, to compile a step for.

    `shape` is an image's; `several_labels` the number of classes of which an image may have several.
    """

    def array(dtype: Any, *shape: int) -> Any:
        return jax.ShapeDtypeStruct((batch_size, *shape), dtype, sharding=over_data(mesh))

    numbers = array(jnp.int32)
    return Batch(
        image=array(jnp.uint8, *shape),
        label=numbers if several_labels is None else array(jnp.float32, several_labels),
        mask=array(jnp.bool),
        index=numbers,
        epoch=numbers,
        aspect=array(jnp.float32),
    )


def check_batch_size(key: str, batch_size: int, mesh: Mesh) -> None:
    """Refuses a batch that the devices cannot share equally, and names the nearest that they can."""
    if batch_size % mesh.size:
        below, above = batch_size // mesh.size * mesh.size, -(-batch_size // mesh.size) * mesh.size
        nearest = f"{below} or {above}" if below else str(above)
        raise UserError(f"{key} {batch_size} cannot be shared equally by {mesh.size} devices: take {nearest}")


def round_up(batch_size: int, mesh: Mesh) -> int:
    """Returns the smallest batch of at least `batch_size` that the devices share equally."""
    return -(-batch_size // mesh.size) * mesh.size
