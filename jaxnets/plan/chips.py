"""What the makers say of their chips: the speeds that bound a step."""

from dataclasses import dataclass

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
}  # fmt: skip

# By the name that --topology has for it; dense rates, without sparsity.
GPUS: dict[str, Chip] = {
    "t4": Chip(
        flops=65e12, memory=16 * _GB, bandwidth=320e9, interconnect=16e9, source="NVIDIA T4 data sheet (float16)"
    ),
    "l4": Chip(flops=121e12, memory=24 * _GB, bandwidth=300e9, interconnect=32e9, source="NVIDIA L4 data sheet"),
    "a100": Chip(
        flops=312e12, memory=80 * _GB, bandwidth=2039e9, interconnect=300e9, source="NVIDIA A100 80 GB SXM data sheet"
    ),
    "h100": Chip(
        flops=989e12, memory=80 * _GB, bandwidth=3350e9, interconnect=450e9, source="NVIDIA H100 SXM data sheet"
    ),
    "h200": Chip(
        flops=989e12, memory=141 * _GB, bandwidth=4800e9, interconnect=450e9, source="NVIDIA H200 SXM data sheet"
    ),
}  # fmt: skip


def tpu(device_kind: str) -> Chip:
    if device_kind not in TPUS:
        raise UserError(
            f"the speeds of {device_kind!r} are not known here; those of {', '.join(TPUS)} are: add it to "
            f"jaxnets/plan/chips.py"
        )
    return TPUS[device_kind]
