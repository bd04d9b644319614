"""Where arrays live: a mesh of all devices, batches split over it, everything else on each of them."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from jaxnets.data.batch import Batch
from jaxnets.errors import UserError
from jaxnets.preprocess import Preprocess


def make_mesh(devices: Sequence[jax.Device] | None = None) -> Mesh:
    """Returns a mesh of the devices, by default all, along one axis, `data`."""
    devices = devices or jax.devices()
    return jax.make_mesh((len(devices),), ("data",), axis_types=(AxisType.Auto,), devices=devices)


def over_data(mesh: Mesh, axis: int = 0) -> NamedSharding:
    """Returns the sharding that splits the given axis over the devices."""
    return NamedSharding(mesh, PartitionSpec(*[None] * axis, "data"))


def replicated(mesh: Mesh) -> NamedSharding:
    return NamedSharding(mesh, PartitionSpec())


def batch_like(batch_size: int, preprocess: Preprocess, mesh: Mesh) -> Batch:
    """Returns the shapes and shardings of a batch over the devices, to compile a step for."""
    p = preprocess

    def array(dtype: Any, *shape: int) -> Any:
        return jax.ShapeDtypeStruct((batch_size, *shape), dtype, sharding=over_data(mesh))

    numbers = array(jnp.int32)
    image = array(jnp.uint8, p.height, p.width, p.channels)
    return Batch(image=image, label=numbers, mask=array(jnp.bool), index=numbers, epoch=numbers)


def check_batch_size(key: str, batch_size: int, mesh: Mesh) -> None:
    """Refuses a batch that the devices cannot share equally, and names the nearest that they can."""
    if batch_size % mesh.size:
        below, above = batch_size // mesh.size * mesh.size, -(-batch_size // mesh.size) * mesh.size
        nearest = f"{below} or {above}" if below else str(above)
        raise UserError(f"{key} {batch_size} cannot be shared equally by {mesh.size} devices: take {nearest}")


def round_up(batch_size: int, mesh: Mesh) -> int:
    """Returns the smallest batch of at least `batch_size` that the devices share equally."""
    return -(-batch_size // mesh.size) * mesh.size
