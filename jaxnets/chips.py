"""What the makers say of their chips: the speeds that bound a step."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from jaxnets.errors import UserError


@dataclass(frozen=True, kw_only=True)
class Chip:
    """One chip, whatever number of devices JAX makes of it."""

    flops: float  # bfloat16 operations per second, an addition and a multiplication counted as two
    memory: int  # bytes of high-bandwidth memory
    bandwidth: float  # bytes per second between it and the chip
    interconnect: float  # bytes per second that leave a chip over all of its links; as much comes in at the same time
    source: str


_GB, _GIB = 10**9, 2**30
_CLOUD = "docs.cloud.google.com/tpu/docs"
_NVIDIA = "NVIDIA's data sheet"

# By what JAX calls the device.
TPUS: dict[str, Chip] = {
    "TPU v2": Chip(
        flops=46e12,
        memory=16 * _GIB,
        bandwidth=700e9,
        interconnect=4 * 62e9,
        source="Jouppi et al. 2020, A domain-specific supercomputer, table 3",
    ),
    "TPU v3": Chip(
        flops=123e12,
        memory=32 * _GIB,
        bandwidth=900e9,
        interconnect=4 * 82e9,
        source="Jouppi et al. 2020, A domain-specific supercomputer, table 3",
    ),
    "TPU v4": Chip(
        flops=275e12,
        memory=32 * _GIB,
        bandwidth=1200e9,
        interconnect=6 * 50e9,
        source="Jouppi et al. 2023, TPU v4, table 4",
    ),
    "TPU v5 lite": Chip(
        flops=197e12, memory=16 * _GIB, bandwidth=819e9, interconnect=200e9, source=f"{_CLOUD}/v5e"
    ),
    "TPU v5": Chip(flops=459e12, memory=95 * _GB, bandwidth=2765e9, interconnect=600e9, source=f"{_CLOUD}/v5p"),
    "TPU v6 lite": Chip(
        flops=918e12, memory=32 * _GIB, bandwidth=1638e9, interconnect=400e9, source=f"{_CLOUD}/v6e"
    ),
    "TPU7x": Chip(flops=2307e12, memory=192 * _GIB, bandwidth=7380e9, interconnect=600e9, source=f"{_CLOUD}/tpu7x"),
}  # fmt: skip

# By what JAX calls the device, without its maker; dense rates, without sparsity. GPUs of one machine meet over NVLink
# where all of them have it, and over PCIe otherwise: a bridge between two cards or four is not counted on.
GPUS: dict[str, Chip] = {
    "H200": Chip(flops=989e12, memory=141 * _GB, bandwidth=4800e9, interconnect=450e9, source=f"{_NVIDIA}, H200 SXM"),
    "H100 80GB HBM3": Chip(
        flops=989e12, memory=80 * _GB, bandwidth=3350e9, interconnect=450e9, source=f"{_NVIDIA}, H100 SXM"
    ),
    "H100 PCIe": Chip(flops=756e12, memory=80 * _GB, bandwidth=2000e9, interconnect=64e9, source=f"{_NVIDIA}, H100"),
    "A100-SXM4-80GB": Chip(
        flops=312e12, memory=80 * _GB, bandwidth=2039e9, interconnect=300e9, source=f"{_NVIDIA}, A100 80 GB SXM"
    ),
    "A100-SXM4-40GB": Chip(
        flops=312e12, memory=40 * _GB, bandwidth=1555e9, interconnect=300e9, source=f"{_NVIDIA}, A100 40 GB SXM"
    ),
    "A100 80GB PCIe": Chip(
        flops=312e12, memory=80 * _GB, bandwidth=1935e9, interconnect=32e9, source=f"{_NVIDIA}, A100 80 GB PCIe"
    ),
    "A100-PCIE-40GB": Chip(
        flops=312e12, memory=40 * _GB, bandwidth=1555e9, interconnect=32e9, source=f"{_NVIDIA}, A100 40 GB PCIe"
    ),
    "L4": Chip(flops=121e12, memory=24 * _GB, bandwidth=300e9, interconnect=32e9, source=f"{_NVIDIA}, L4"),
    "T4": Chip(  # float16: it has no bfloat16
        flops=65e12, memory=16 * _GB, bandwidth=320e9, interconnect=16e9, source=f"{_NVIDIA}, T4"
    ),
}  # fmt: skip


def chip_of(device_kind: str) -> Chip:
    """Returns the chip that JAX calls `device_kind`.

    Raises:
        UserError: if its speeds are not in the tables.
    """
    if device_kind in TPUS:
        return TPUS[device_kind]
    name = device_kind.removeprefix("NVIDIA ").removeprefix("Tesla ")
    if name in GPUS:
        return GPUS[name]
    raise UserError(
        f"the speeds of {device_kind!r} are not known; those of {', '.join([*TPUS, *GPUS])} are, in "
        f"jaxnets/chips.py: add a line there"
    )


def peak_flops(devices: Sequence[Any]) -> float | None:
    """Returns the bfloat16 operations per second of each of JAX's devices; None if they are not in the tables."""
    try:
        chip = chip_of(devices[0].device_kind)
    except UserError:
        return None
    # JAX makes two devices of some chips, which then have one place.
    places = {(device.process_index, tuple(getattr(device, "coords", (device.id,)))) for device in devices}
    return chip.flops * len(places) / len(devices)
