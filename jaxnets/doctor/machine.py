"""A machine as a training run would find it: facts alone, gathered by `gather` and `probe`, judged by the checks."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Platform = Literal["cpu", "gpu", "tpu"]
Outcome = Literal["finished", "failed", "crashed", "hung"]


@dataclass(frozen=True, kw_only=True)
class Process:
    pid: int
    command: str


@dataclass(frozen=True, kw_only=True)
class TpuLock:
    """The file by which libtpu keeps a second process off the chips."""

    path: str
    owner: str  # the user whose file it is
    accessible: bool  # this user may open it for writing, which libtpu does
    holder: Process | None  # that has it locked now; None: stale, or held by somebody whom we may not see


@dataclass(frozen=True, kw_only=True)
class Gpu:
    """One GPU, by nvidia-smi."""

    index: int
    uuid: str  # GPU-…
    name: str
    driver: str
    memory: int  # bytes
    used: int  # bytes, by whichever process


@dataclass(frozen=True, kw_only=True)
class Hardware:
    """The accelerators that the machine has, whatever JAX makes of them."""

    tpu_chips: int = 0
    tpu_lock: TpuLock | None = None
    tpu_holders: tuple[Process, ...] = ()  # that have the chips' device files open
    gpus: tuple[Gpu, ...] = ()
    gpu_nodes: int = 0  # /dev/nvidia0, /dev/nvidia1, …: seen even where nvidia-smi is not
    gpu_holders: tuple[Process, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Host:
    cores: int  # of the machine
    usable_cores: int  # that this process may run on (taskset, cpusets)
    core_quota: float | None = None  # cores' worth of time that the control group grants; None: no limit
    memory: int  # bytes: of the machine, or of the control group where that is less
    available_memory: int  # bytes


@dataclass(frozen=True, kw_only=True)
class Directory:
    """A folder to write to, measured in it or, where it is not there yet, in the nearest parent that is."""

    path: str
    measured_in: str
    file_system: str = "unknown"
    free: int | None = None  # bytes
    error: str | None = None  # why it cannot be written to
    temporary: str | None = None  # why it is not the usual one
    bytes_per_second: float | None = None  # of writing, with fsync


@dataclass(frozen=True, kw_only=True)
class Cache:
    """The compilation cache."""

    path: str
    programs: int = 0
    size: int = 0  # bytes
    error: str | None = None  # why it cannot be written to
    temporary: str | None = None  # why it is not the usual one
    disabled_by: str | None = None  # the variable that turns it off


@dataclass(frozen=True, kw_only=True)
class Probe:
    """What a child process saw that started JAX as a training does."""

    outcome: Outcome
    stage: str = "done"  # that it was in when it ended
    seconds: float = 0.0
    status: int | None = None  # of its exit; negative: the signal that ended it
    platform: Platform | None = None
    device_kind: str = ""
    devices: int = 0  # of all hosts
    local_devices: int = 0  # of this one
    errors: Mapping[str, str] = field(default_factory=dict)  # platform: why JAX could not start it
    messages: str = ""  # the end of what it wrote to standard error
    tensorflow_importer: str | None = None  # the module that made the trainer import TensorFlow


@dataclass(frozen=True, kw_only=True)
class Machine:
    system: str
    python: str
    packages: Mapping[str, str] = field(default_factory=dict)  # installed, of those that matter: name, version
    wanted_libtpu: str | None = None  # the version that the installed jax asks for, such as 0.0.42.*
    environment: Mapping[str, str] = field(default_factory=dict)  # the variables set, of those that matter
    hardware: Hardware = field(default_factory=Hardware)
    host: Host
    workdir: Directory
    cache: Cache
    probe: Probe


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What the user says must be here; None: no demand."""

    platform: Platform | None = None
    devices: int | None = None


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing that was looked at: `fine`, a `note`, or a `fault`, from which a run would suffer."""

    check: str
    level: Literal["fine", "note", "fault"]
    found: str
    remedy: str = ""
    commands: tuple[str, ...] = ()  # that do what the remedy says
