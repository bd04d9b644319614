"""Hardware that is not here, as the compiler describes it."""

import importlib.util
import os
import re
from dataclasses import dataclass
from typing import Any

from jaxnets.chips import GPUS, Chip, chip_of
from jaxnets.errors import UserError, nearest

# What libtpu reads when it is loaded: do not ask a cloud which machine this is, and do not mind whoever uses a TPU
# here, since none is touched.
_ENVIRONMENT = {
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_ACCELERATOR_TYPE": "v5litepod-8",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
    "TF_CPP_MIN_LOG_LEVEL": "3",
}
# Generations of which JAX wants one device for both cores of a chip, as their machines give it; of v4 the compiler
# lists two unless it is asked, of v5p one. The others have no such choice.
_MEGACORE = ("v4", "v5p")
HERE = "here"
_EXAMPLES = ("v5e:2x4", "v6e:2x4", "v4:2x2x1", "v3:2x2", "v5e:16x16")


@dataclass(frozen=True, kw_only=True)
class Topology:
    name: str
    chip: Chip
    device_kind: str
    devices: tuple[Any, ...]
    chips: int

    @property
    def cores(self) -> int:
        """Devices that JAX makes of one chip, each with its share of the chip's speed and memory."""
        return len(self.devices) // self.chips

    @property
    def memory(self) -> int:
        """Bytes of memory for each device."""
        return self.chip.memory // self.cores


def prepare_environment() -> None:
    """Lets libtpu compile where no TPU is, and JAX take no accelerator; of effect only before JAX is imported."""
    os.environ["JAX_PLATFORMS"] = "cpu"
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)


def describe(name: str) -> Topology:
    """Returns the TPUs of a topology such as `v5e:2x4`, which need not be here; or with `here` the devices that are.

    Raises:
        UserError: if libtpu is missing, if it knows no such topology, or if the chip's speeds are not known.
    """
    if name == HERE:
        import jax

        return _topology(name, jax.devices())
    if name.partition(":")[0].upper() in {re.split(r"\W", gpu)[0] for gpu in GPUS}:
        raise UserError(
            f"{name!r} cannot be planned from afar: what a GPU moves and holds is known to NVIDIA's compiler alone, "
            f"which wants the GPU itself. On a machine that has one, use --topology {HERE}; here, plan for a TPU"
        )
    if importlib.util.find_spec("libtpu") is None and "TPU_LIBRARY_PATH" not in os.environ:
        raise UserError(
            "planning for a TPU needs its compiler, libtpu, which is not installed (no TPU is needed): "
            "pip install 'jax[tpu]'"
        )
    from jax.errors import JaxRuntimeError
    from jax.experimental import topologies

    generation = re.split(r"[-:=_]", name.lower())[0]
    options = {"chip_config_name": "megacore"} if generation in _MEGACORE else {}
    try:
        devices: Any = topologies.get_topology_desc(name, platform="tpu", **options).devices
    except (JaxRuntimeError, RuntimeError) as error:
        reason = str(error).splitlines()[0].partition(": ")[2] or str(error)
        raise UserError(
            f"there is no topology {name!r}{nearest(name, _EXAMPLES)}: give a generation and its chips as "
            f"{', '.join(_EXAMPLES)}; the compiler says: {reason}"
        ) from error
    return _topology(name, devices)


def _topology(name: str, devices: Any) -> Topology:
    kind = devices[0].device_kind
    places = {tuple(getattr(device, "coords", (device.id,))) for device in devices}
    return Topology(
        name=name,
        chip=chip_of(kind),
        device_kind=kind,
        devices=tuple(devices),
        chips=len(places),
    )
