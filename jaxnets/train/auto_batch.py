"""config.batch_size auto: the largest batch whose training fits into memory, by the compiler's own account."""

import functools
import logging
import math
import os
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax
from jax.sharding import Mesh

from jaxnets.chips import chip_of
from jaxnets.config import Config
from jaxnets.data.allocator import give_back_freed_memory
from jaxnets.data.dataset import Dataset
from jaxnets.data.examples import Examples
from jaxnets.doctor.gather import host
from jaxnets.errors import UserError
from jaxnets.models.family import Variables
from jaxnets.run.directory import RunDirectory
from jaxnets.schema import AUTO
from jaxnets.terminal import without_warnings
from jaxnets.train.build import build
from jaxnets.train.feed import lower_step, resides
from jaxnets.train.hosts import Hosts
from jaxnets.train.largest import Found, largest_batch
from jaxnets.train.mesh import make_mesh, over_data
from jaxnets.train.opened import Opened
from jaxnets.train.phases import Phases
from jaxnets.train.start import open_start
from jaxnets.train.step import TrainState
from jaxnets.train.teacher import open_teacher

_log = logging.getLogger(__name__)

_FIRST = 32  # examples for each device, to begin with
_ROOM = 0.96  # share of the memory that is filled: what is allocated piece by piece leaves gaps
# What XLA's CPU takes beside its own account, in arrays as large as the largest of a convolution: seen with ResNet-8 on
# batches of 3,584 images of 28×28, whose step needs 386 MiB beside, with arrays of 172 MiB.
_PACKED = 2.25
_TENSOR = re.compile(r"tensor<((?:\d+x)*\d+)xb?f(\d+)>")
_MIB = 2**20
_NO_ROOM = "RESOURCE_EXHAUSTED"


def with_batch_size(
    config: Config,
    run: RunDirectory,
    hosts: Hosts,
    mesh: Mesh | None,
    opened: Opened,
    say: Callable[[str], None],
) -> Config:
    """Returns the config with a number for config.batch_size, found anew or as the run in the directory has it.

    Raises:
        UserError: if no batch fits.
    """
    if config.batch_size != AUTO:
        return config
    known = replace(config, memory_limit_mib=None)
    if hosts.decide("is there a run to take the batch size from", run.is_run):
        return replace(known, batch_size=hosts.decide("its batch size", lambda: run.read_config().batch_size))
    found = hosts.decide("batch size", lambda: _find(config, mesh or make_mesh(), opened, say))
    known = replace(known, batch_size=found)
    say(_of_the_rate(known))
    return known


def _find(config: Config, mesh: Mesh, opened: Opened, say: Callable[[str], None]) -> int:
    began = time.monotonic()
    quantum = quantum_of(config, mesh.size)
    measured = Measured.open(replace(config, batch_size=quantum), mesh, opened)
    need = functools.cache(measured.need)
    first = first_batch(config, mesh.size)
    need(first)  # what the compiler leaves behind counts as used from here on
    room = memory_for_step(config, measured.data, mesh, measured.state_bytes)
    count = len(measured.data.training)
    fixed = 2 * measured.state_bytes + _images(config, [measured.data.training])
    found = largest_batch(need, room.bytes, fixed=fixed, quantum=quantum, first=first, most=count)
    if found.size is None:
        raise UserError(_refusal(found, quantum, room))
    seconds = time.monotonic() - began
    per_device = " a device" if mesh.size > 1 else ""
    said = f"config.batch_size auto: {found.size:,}. Its step needs {_shown(found.need)}{per_device} of {room.said}"
    say(f"{said}; {found.asked} programs compiled in {seconds:.0f} s")
    if found.size + quantum > count:
        _log.warning(
            "config.batch_size auto takes all %s training images as one batch, so that an epoch is one step: memory is "
            "no reason for a size here, and a smaller one trains better as a rule",
            f"{count:,}",
        )
    return found.size


def quantum_of(config: Config, devices: int) -> int:
    """Returns what every batch is a multiple of: equal shares, whole groups of BatchNorm, repeats and pairs."""
    share = math.lcm(devices, config.batch_norm.group_size or 1)
    pairs = 2 if config.mix.mixup or config.mix.cutmix else 1
    return math.lcm(config.accumulate_steps * share, config.data.repeats, pairs)


def first_batch(config: Config, devices: int) -> int:
    """Returns the batch that a search begins with."""
    quantum = quantum_of(config, devices)
    return max(quantum, _FIRST * devices // quantum * quantum)


@dataclass(frozen=True, kw_only=True)
class Measured:
    """The training step of a config, of which batches of any size can be asked what they need."""

    config: Config
    mesh: Mesh
    data: Dataset
    fields: Any
    teacher: Any
    state_bytes: int  # of the state on each device

    @classmethod
    def open(cls, config: Config, mesh: Mesh, opened: Opened) -> "Measured":
        jax.config.update("jax_enable_x64", config.dtype == "float64")
        jax.config.update("jax_default_matmul_precision", config.matmul_precision)
        start = open_start(config)
        data = opened.open(config, None, start.preprocess if start else None)
        teacher = open_teacher(config, data.class_names, several_labels=data.several_labels)
        measured = cls(
            config=config, mesh=mesh, data=data, fields=start.fields if start else None, teacher=teacher, state_bytes=0
        )
        state = measured._step(config.batch_size)[1]
        return replace(measured, state_bytes=_bytes_on_a_device(replace(state, teacher=None)))

    def need(self, batch_size: int) -> int | None:
        """Returns the bytes that training takes on each device; None where the compiler finds no place for it.

        Those are the step's, with the images that lie there, and a copy of the state, which is made to save it.
        """
        step, state = self._step(batch_size)
        lowered = lower_step(self.config.data, self.data.training, step, state, batch_size, self.mesh)
        try:
            compiled = lowered.compile()
        except jax.errors.JaxRuntimeError as error:
            if _NO_ROOM not in str(error):
                raise
            return None
        memory = compiled.memory_analysis()
        del compiled
        give_back_freed_memory()
        if _platform(self.mesh) != "cpu":
            return memory.peak_memory_in_bytes + self.state_bytes
        # On a CPU the peak leaves temporaries out, and the account what Eigen packs of a convolution's operands.
        held = memory.argument_size_in_bytes + memory.output_size_in_bytes - memory.alias_size_in_bytes
        packed = _PACKED * largest_of_a_convolution(lowered.as_text()) / self.mesh.size
        return int(held + memory.temp_size_in_bytes + packed) + self.state_bytes

    def _step(self, batch_size: int) -> tuple[Any, TrainState]:
        config = replace(self.config, batch_size=batch_size)
        with without_warnings():  # the run warns of the batch that it takes
            built = build(config, self.data, self.fields, over_data(self.mesh, axis=1), self.teacher)
        variables: Variables | None = self.teacher.variables if self.teacher else None
        phases = Phases(built.phases, self.mesh, split=config.mesh.shard_parameters, teacher=variables)
        last = built.phases[-1]  # no other takes as much memory
        return last.step, phases.like(last)


def largest_of_a_convolution(text: str) -> int:
    """Returns the bytes of the largest array that any convolution in a program's StableHLO takes or makes."""
    lines = (line for line in text.splitlines() if "stablehlo.convolution" in line)
    arrays = (found for line in lines for found in _TENSOR.findall(line))
    return max((math.prod(map(int, sides.split("x"))) * int(bits) // 8 for sides, bits in arrays), default=0)


def _platform(mesh: Mesh) -> str:
    return mesh.devices.flat[0].platform


@dataclass(frozen=True)
class Room:
    bytes: float  # for a training step on each device
    said: str


def memory_for_step(config: Config, data: Dataset, mesh: Mesh, state_bytes: int) -> Room:
    """Returns the memory that a training step may take on each device.

    Raises:
        UserError: if it is not known.
    """
    limit = None if config.memory_limit_mib is None else config.memory_limit_mib * _MIB
    given = "config.memory_limit_mib" if limit is not None else None
    if _platform(mesh) != "cpu":
        device = mesh.devices.flat[0]
        own = (device.memory_stats() or {}).get("bytes_limit") or _published(device)
        if limit is None or own < limit:
            limit, given = own, f"the {device.device_kind}"
        return Room(_ROOM * limit, f"{_shown(limit)} ({given})")
    used = resident()
    if limit is None:
        limit, given = used + host().available_memory, "free, and used by this process"
    splits = [data.training, data.splits.get("validation") or data.split("test")]
    waiting = _images(config, [each for each in splits if not each.in_memory])
    local = sum(device.process_index == jax.process_index() for device in mesh.devices.flat)
    room = _ROOM * limit - used - waiting
    return Room(room / local, f"{_shown(room / local)}, what {_shown(limit)} ({given}) leave")


def _images(config: Config, splits: Sequence[Examples]) -> int:
    """Returns the bytes of the images that are kept in memory."""
    return sum(each.nbytes for each in splits if resides(config.data, each))


def _published(device: Any) -> int:
    chip = chip_of(device.device_kind)
    return chip.memory


def resident() -> int:
    """Returns the bytes of memory that this process has in use."""
    try:
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:  # elsewhere than on Linux: at most so many, once
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _of_the_rate(config: Config) -> str:
    """Returns what the batch that was found means for the rate."""
    spec = config.optimizer
    if spec.learning_rate_per_256 is not None:
        return (
            f"the rate at its peak is {spec.peak(config.batch_size):.4g}: config.optimizer.learning_rate_per_256 "
            f"{spec.learning_rate_per_256:g} × {config.batch_size:,} / 256"
        )
    return (
        f"the rate at its peak stays {spec.peak(config.batch_size):.4g}, as config.optimizer.learning_rate says for "
        f"whatever batch; config.optimizer.learning_rate_per_256 would follow it"
    )


def _refusal(found: Found, quantum: int, room: Room) -> str:
    needs = "" if found.need is None else f": its step needs {_shown(found.need)}"
    smallest = min(found.refused or quantum, quantum)
    return (
        f"config.batch_size auto: not even a batch of {smallest:,} fits{needs}, and there is {room.said}. Take a "
        f"smaller model or smaller images (config.data.image_size), compute some again (config.model.remat_stages), "
        f"keep the images elsewhere (config.data.placement=stream), or raise config.memory_limit_mib where it is set"
    )


def _shown(size: float | None) -> str:
    return "an unknown amount" if size is None else f"{max(size, 0) / _MIB:,.0f} MiB"


def _bytes_on_a_device(tree: Any) -> int:
    return sum(
        math.prod(x.sharding.shard_shape(x.shape)) * jax.numpy.dtype(x.dtype).itemsize for x in jax.tree.leaves(tree)
    )
