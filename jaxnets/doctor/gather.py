"""Gathers what a machine is, without JAX: everything here reads, but for one file that is written and removed."""

import fcntl
import importlib.metadata
import math
import os
import platform
import pwd
import re
import struct
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path

from jaxnets.cache import choose_directory
from jaxnets.cores import cores
from jaxnets.doctor.machine import Cache, Directory, Gpu, Hardware, Host, Machine, Probe, Process, TpuLock
from jaxnets.doctor.remote import measure_remote
from jaxnets.errors import UserError
from jaxnets.run.storage import open_place

TPU_LOCK = Path("/tmp/libtpu_lockfile")
_PACKAGES = re.compile(
    r"jax|jaxlib|flax|jaxnets|libtpu.*|jax-.*(plugin|pjrt)|nvidia-cudnn-cu\d+|(tensorflow|tf[-_]nightly)([-_](cpu|gpu|tpu|macos|intel))?"
)
_VARIABLES = re.compile(
    r"JAX_.*|XLA_.*|LIBTPU_INIT_ARGS|TPU_.*|CUDA_VISIBLE_DEVICES|NVIDIA_VISIBLE_DEVICES|LD_LIBRARY_PATH"
    r"|KAGGLE_KERNEL_RUN_TYPE|COLAB_RELEASE_TAG|SLURM_JOB_ID|KUBERNETES_SERVICE_HOST"
)
_TPU_PCI_VENDOR = "0x1ae0"
_TPU_PCI_DEVICES = {"0x0027", "0x0056", "0x005e", "0x0062", "0x0063", "0x006f", "0x0076"}  # v2 and v3 to 7x
_WRITTEN = 64 * 2**20  # bytes that time the work directory,
_WRITING = 5.0  # or as many as can be written in so many seconds


def gather(workdir: str, probe: Callable[[], Probe], environment: Mapping[str, str] = os.environ) -> Machine:
    """Returns the machine as a run with this work directory would find it."""
    # The probe goes first: while it runs, the disk should have nothing to do.
    seen = probe()
    return Machine(
        system=f"{platform.system()} {platform.machine()}",
        python=platform.python_version(),
        packages=packages(),
        wanted_libtpu=wanted_libtpu(),
        environment={name: value for name, value in sorted(environment.items()) if _VARIABLES.fullmatch(name)},
        hardware=Hardware(
            tpu_chips=tpu_chips(),
            tpu_lock=tpu_lock(TPU_LOCK),
            tpu_holders=holders(re.compile(r"/dev/(accel\d+|vfio/\d+)")),
            gpus=gpus(),
            gpu_nodes=sum(bool(re.fullmatch(r"nvidia\d+", name)) for name in _listed(Path("/dev"))),
            gpu_holders=holders(re.compile(r"/dev/nvidia\d+")),
        ),
        host=host(),
        workdir=measure_directory(workdir),
        cache=compilation_cache(environment),
        probe=seen,
    )


def packages() -> dict[str, str]:
    found: dict[str, str] = {}
    for distribution in importlib.metadata.distributions():
        name = (distribution.metadata["Name"] or "").lower()
        if _PACKAGES.fullmatch(name):
            found.setdefault(name, distribution.version)
    # What lies on the path without pip's knowledge is imported all the same.
    with suppress(ImportError, ValueError):
        from importlib.util import find_spec

        if find_spec("tensorflow") and not any(name.startswith(("tensorflow", "tf")) for name in found):
            found["tensorflow"] = "of unknown version"
    return dict(sorted(found.items()))


def wanted_libtpu() -> str | None:
    """Returns the version of libtpu that the installed jax was made for, such as `0.0.42.*`."""
    with suppress(importlib.metadata.PackageNotFoundError):
        for requirement in importlib.metadata.requires("jax") or ():
            match = re.match(r"libtpu\s*==\s*([0-9.*]+)", requirement)
            if match:
                return match[1]
    return None


def tpu_chips() -> int:
    """Counts the chips on the PCI bus, or their device files where a container hides the bus."""
    on_bus = 0
    for vendor in Path("/sys/bus/pci/devices").glob("*/vendor"):
        if _read(vendor) == _TPU_PCI_VENDOR and _read(vendor.with_name("device")) in _TPU_PCI_DEVICES:
            on_bus += 1
    nodes = sum(bool(re.fullmatch(r"accel\d+", name)) for name in _listed(Path("/dev")))
    return max(on_bus, nodes)


def tpu_lock(path: Path) -> TpuLock | None:
    """Returns libtpu's lock file as it is now, None where there is none."""
    try:
        status = path.stat()
    except OSError:
        return None
    accessible, holder = False, None
    with suppress(OSError), path.open("r+b") as file:
        accessible = True
        # Asks who holds it. Taking it, if only for a moment, could hit a run that starts now.
        request = struct.pack("hhqqi", fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
        kind, *_, pid = struct.unpack("hhqqi", fcntl.fcntl(file, fcntl.F_GETLK, request))
        if kind != fcntl.F_UNLCK:
            holder = _process(pid)
    if not accessible:
        holder = next(iter(holders(re.compile(re.escape(str(path))))), None) or _holder_by_kernel(status.st_ino)
    try:
        owner = pwd.getpwuid(status.st_uid).pw_name
    except KeyError:
        owner = str(status.st_uid)
    return TpuLock(path=str(path), owner=owner, accessible=accessible, holder=holder)


def _holder_by_kernel(inode: int) -> Process | None:
    """Looks a lock up in /proc/locks: `1: POSIX  ADVISORY  WRITE 1234 fe:00:567 0 EOF`."""
    for line in (_read(Path("/proc/locks")) or "").splitlines():
        words = line.split()
        if len(words) > 5 and words[5].endswith(f":{inode}"):
            return _process(int(words[4]))
    return None


def holders(device: re.Pattern[str]) -> tuple[Process, ...]:
    """Returns the processes that have such a file open, as far as this user may see."""
    found = []
    for entry in _listed(Path("/proc")):
        if not entry.isdigit() or int(entry) == os.getpid():
            continue
        files = Path("/proc", entry, "fd")
        for name in _listed(files):
            with suppress(OSError):
                if device.fullmatch(os.readlink(files / name)):
                    found.append(_process(int(entry)))
                    break
    return tuple(found)


def gpus() -> tuple[Gpu, ...]:
    fields = "index,uuid,name,driver_version,memory.total,memory.used"
    query = ["nvidia-smi", f"--query-gpu={fields}", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(query, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return ()
    return read_gpus(done.stdout)


def read_gpus(table: str) -> tuple[Gpu, ...]:
    """Reads nvidia-smi's CSV, whose memory is in MiB; a field that a GPU does not tell counts as 0.

    Between its rows nvidia-smi may warn, or say that it found no device.
    """
    found = []
    for line in table.splitlines():
        fields = [field.strip() for field in line.split(",")]
        if len(fields) != 6 or not fields[0].isdigit():
            continue
        index, uuid, name, driver, *sizes = fields
        total, used = (int(size) * 2**20 if size.isdigit() else 0 for size in sizes)
        found.append(Gpu(index=int(index), uuid=uuid, name=name, driver=driver, memory=total, used=used))
    return tuple(found)


def host() -> Host:
    quota, limit, used = control_group(Path("/sys/fs/cgroup"), _read(Path("/proc/self/cgroup")) or "")
    sizes = dict(re.findall(r"^(\w+):\s+(\d+) kB", _read(Path("/proc/meminfo")) or "", re.MULTILINE))
    memory, available = (int(sizes.get(key, 0)) * 1024 for key in ("MemTotal", "MemAvailable"))
    if limit is not None and limit < memory:
        memory, available = limit, min(available, max(0, limit - used))
    return Host(
        cores=os.cpu_count() or 1,
        usable_cores=cores(),
        core_quota=quota,
        memory=memory,
        available_memory=available,
    )


def control_group(root: Path, membership: str) -> tuple[float | None, int | None, int]:
    """Returns what the control groups of this process grant: cores, bytes of memory, and the bytes used of them.

    Files that the kernel keeps in memory and would drop for anything else are not counted as used.

    Args:
        root: where control groups are mounted; version 1 or 2.
        membership: the content of /proc/self/cgroup.
    """
    quotas, limits = [math.inf], [(math.inf, 0)]
    for line in membership.splitlines():
        _, _, own = line.split(":", 2)
        # Inside a container the root of the mount is the group itself, whatever the name says.
        steps = [Path(own.strip("/")), *Path(own.strip("/")).parents]
        for group in steps:
            cpu = _words(root / group / "cpu.max") or [
                *_words(root / "cpu" / group / "cpu.cfs_quota_us"),
                *_words(root / "cpu" / group / "cpu.cfs_period_us"),
            ]
            if len(cpu) == 2 and cpu[0].isdigit():
                quotas.append(int(cpu[0]) / int(cpu[1]))
            for folder, limit, usage, droppable in (
                (root / group, "memory.max", "memory.current", "inactive_file"),
                (root / "memory" / group, "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
            ):
                words = _words(folder / limit)
                if words and words[0].isdigit():
                    found = re.search(rf"^{droppable} (\d+)$", _read(folder / "memory.stat") or "", re.MULTILINE)
                    used = int("".join(_words(folder / usage)) or 0) - (int(found[1]) if found else 0)
                    limits.append((int(words[0]), max(0, used)))
    quota, (limit_bytes, used) = min(quotas), min(limits)
    return (
        None if math.isinf(quota) else quota,
        None if math.isinf(limit_bytes) else int(limit_bytes),
        used,
    )


def measure_directory(path: str) -> Directory:
    """Writes a file where a run would, times it, and removes it."""
    if "://" in path:
        try:
            open_place(path)
        except UserError as refusal:
            return Directory(path=path, measured_in=path, file_system=path.partition(":")[0], error=str(refusal))
        return measure_remote(path)
    wanted = Path(path).expanduser().absolute()
    existing = _existing(wanted)
    free = error = speed = None
    try:
        status = os.statvfs(existing)
        free = status.f_bavail * status.f_frsize
        speed = _write_speed(existing, min(_WRITTEN, free // 2))
    except OSError as failure:
        error = failure.strerror or str(failure)
    return Directory(
        path=path,
        measured_in=str(existing),
        file_system=file_system(existing, _read(Path("/proc/self/mounts")) or ""),
        free=free,
        error=error,
        bytes_per_second=speed,
    )


def _write_speed(directory: Path, size: int) -> float:
    probe = directory / f".jaxnets-doctor-{os.getpid()}"
    block = os.urandom(2**20)  # some file systems compress, and zeros would flatter them
    try:
        with probe.open("xb", buffering=0) as file:
            start = time.perf_counter()
            written = 0
            while written < max(size, 1) and time.perf_counter() - start < _WRITING:
                written += file.write(block)
            os.fsync(file.fileno())
            return written / (time.perf_counter() - start)
    finally:
        with suppress(OSError):
            probe.unlink()


def file_system(path: Path, mounts: str) -> str:
    """Returns the kind of file system, such as ext4, nfs4 or fuse.drive, by the content of /proc/self/mounts."""
    best, kind = "", "unknown"
    for line in mounts.splitlines():
        _, mount, found, *_ = line.split()
        mount = mount.replace("\\040", " ")
        if len(mount) >= len(best) and path.is_relative_to(mount):
            best, kind = mount, found
    return kind


def compilation_cache(environment: Mapping[str, str]) -> Cache:
    """Returns the cache that training would use, by the rules of `cache.use_compilation_cache`."""
    chosen, reason = choose_directory()
    path = chosen / "compiled"
    if environment.get("JAX_COMPILATION_CACHE_DIR"):
        path, reason = Path(os.path.expanduser(environment["JAX_COMPILATION_CACHE_DIR"])), None
    off = environment.get("JAX_ENABLE_COMPILATION_CACHE", "").lower() in ("0", "false", "no", "off", "f", "n")
    sizes = []
    for entry in _listed(path):
        if entry.endswith("-cache"):
            with suppress(OSError):
                sizes.append((path / entry).stat().st_size)
    existing = _existing(path.absolute())
    return Cache(
        path=str(path),
        programs=len(sizes),
        size=sum(sizes),
        error=None if os.access(existing, os.W_OK | os.X_OK) and existing.is_dir() else f"{existing} is not writable",
        temporary=reason,
        disabled_by="JAX_ENABLE_COMPILATION_CACHE" if off else None,
    )


def _existing(path: Path) -> Path:
    """Returns the path, or the nearest of its parents that is there as far as this user may see."""
    # os.path.exists and not Path.exists, which raises where a folder on the way may not be entered.
    return next(parent for parent in (path, *path.parents) if os.path.exists(parent))


def _process(pid: int) -> Process:
    try:
        line = Path("/proc", str(pid), "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        line = ""
    line = " ".join(line.split())
    return Process(pid=pid, command=line[:120] or "command unknown")


def _read(file: Path) -> str | None:
    try:
        return file.read_text(errors="replace").strip()
    except OSError:
        return None


def _words(file: Path) -> list[str]:
    return (_read(file) or "").split()


def _listed(folder: Path) -> Iterable[str]:
    try:
        return sorted(os.listdir(folder))
    except OSError:
        return ()
