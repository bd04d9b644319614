"""Judges what feeds and keeps a training: cores, memory, the work directory and the compilation cache."""

from jaxnets.doctor.machine import Finding, Host, Machine, Wanted

_GIB = 2**30
_LEAST_MEMORY = 2 * _GIB  # the run on the digits needs 1 at its peak
_SOME_MEMORY = 6 * _GIB
_CORES_PER_DEVICE = 4  # that decode JPEG, as a rule of thumb
_LEAST_SPACE = _GIB  # four checkpoints of a ResNet-50
_SLOW = 10e6  # bytes a second: a checkpoint of a ResNet-50 takes 20 s
_SLUGGISH = 50e6
_BUCKETS = "jaxnets[gcs]"  # what storage.open_place asks for
_IN_MEMORY = {"tmpfs", "ramfs"}


def check_cores(machine: Machine, wanted: Wanted) -> list[Finding]:
    host, devices = machine.host, machine.probe.local_devices
    usable = _usable(host)
    text = f"{usable:g} of {host.cores} cores" if usable < host.cores else f"{host.cores} cores"
    if usable < 2:
        text = f"{usable:g} core" if host.cores == 1 else f"this process may use {usable:g} of {host.cores} cores"
        remedy, commands = _more_cores(machine)
        return [
            Finding(
                check="cores",
                level="fault",
                found=f"{text}: images are decoded, steps started and checkpoints written by turns",
                remedy=remedy,
                commands=commands,
            )
        ]
    if machine.probe.platform in ("gpu", "tpu") and usable < _CORES_PER_DEVICE * devices:
        return [
            Finding(
                check="cores",
                level="note",
                found=f"{text} for {devices} devices: decoding JPEG may not keep up",
                remedy="Data that fits on the device is decoded once; raise the limit if it nearly fits.",
                commands=("python -m jaxnets.main … --config.data.device_limit_mib=8192",),
            )
        ]
    return [Finding(check="cores", level="fine", found=text)]


def check_memory(machine: Machine, wanted: Wanted) -> list[Finding]:
    host = machine.host
    text = f"{host.available_memory / _GIB:.1f} of {host.memory / _GIB:.1f} GiB are free"
    if host.available_memory < _LEAST_MEMORY:
        remedy = "End other programs, or take a machine with more: a run is killed where memory ends."
        return [Finding(check="memory", level="fault", found=text, remedy=remedy)]
    if host.available_memory < _SOME_MEMORY:
        remedy = "Enough for small data. Larger data streams from disk in less, with fewer threads."
        commands = ("python -m jaxnets.main … --config.data.placement=stream --config.data.threads=2",)
        return [Finding(check="memory", level="note", found=text, remedy=remedy, commands=commands)]
    return [Finding(check="memory", level="fine", found=text)]


def check_workdir(machine: Machine, wanted: Wanted) -> list[Finding]:
    folder = machine.workdir
    where = folder.path if folder.path == folder.measured_in else f"{folder.path} (in {folder.measured_in})"
    if folder.error is not None:
        missing = _BUCKETS in folder.error
        return [
            Finding(
                check="work directory",
                level="fault",
                found=f"{where} cannot be written to: {folder.error}",
                remedy="Install what reads buckets."
                if missing
                else "Give another with --workdir, or make room and permission for this one.",
                commands=(f"pip install '{_BUCKETS}'",) if missing else (),
            )
        ]
    speed = folder.bytes_per_second or 0.0
    room = "" if folder.free is None else f", {folder.free / _GIB:,.1f} GiB free"
    text = f"{where}: {speed / 1e6:,.0f} MB/s{room}, {folder.file_system}"
    if folder.free is not None and folder.free < _LEAST_SPACE:
        remedy = "Make room: the newest two checkpoints and the best are kept, and one is written beside them."
        return [Finding(check="work directory", level="fault", found=text, remedy=remedy)]
    if speed < _SLUGGISH:
        return [
            Finding(
                check="work directory",
                level="fault" if speed < _SLOW else "note",
                found=f"{text}: slow for checkpoints",
                remedy="Train on a local disk and copy the run directory when it stops, or save less often.",
                commands=("python -m jaxnets.main … --config.checkpoint_every_steps=5000",),
            )
        ]
    if folder.file_system in _IN_MEMORY:
        remedy = "It lies in memory and is gone with the machine: copy it, or give another --workdir."
        return [Finding(check="work directory", level="note", found=text, remedy=remedy)]
    return [Finding(check="work directory", level="fine", found=text)]


def check_cache(machine: Machine, wanted: Wanted) -> list[Finding]:
    cache = machine.cache
    elsewhere = ("export JAX_COMPILATION_CACHE_DIR=DIR",)
    if cache.disabled_by:
        remedy = "Unset it: every start compiles everything anew."
        commands = (f"unset {cache.disabled_by}",)
        found = f"turned off by {cache.disabled_by}"
        return [Finding(check="compilation cache", level="note", found=found, remedy=remedy, commands=commands)]
    if cache.error:
        return [
            Finding(
                check="compilation cache",
                level="note",
                found=f"{cache.path} cannot be written to: {cache.error}; every start compiles everything anew",
                remedy="Give a directory that can.",
                commands=elsewhere,
            )
        ]
    text = f"{cache.path}: {cache.programs} programs, {cache.size / 1e6:.0f} MB"
    if cache.temporary:
        found = f"{text}; it is a temporary one: {cache.temporary}"
        remedy = "Give a directory that stays, or every machine compiles everything anew."
        return [Finding(check="compilation cache", level="note", found=found, remedy=remedy, commands=elsewhere)]
    fleeting = {"KAGGLE_KERNEL_RUN_TYPE": "/kaggle/working", "COLAB_RELEASE_TAG": "/content/drive"}
    for variable, kept in fleeting.items():
        if variable in machine.environment and not cache.path.startswith(kept):
            return [
                Finding(
                    check="compilation cache",
                    level="note",
                    found=f"{text}; it ends with this session",
                    remedy="Fine for one session. To spare the next one the compilation, keep it with the run.",
                    commands=(f"export JAX_COMPILATION_CACHE_DIR={kept}/compiled",),
                )
            ]
    return [Finding(check="compilation cache", level="fine", found=text)]


def _usable(host: Host) -> float:
    return min(host.usable_cores, host.core_quota or host.cores)


def _more_cores(machine: Machine) -> tuple[str, tuple[str, ...]]:
    host, variables = machine.host, machine.environment
    if "SLURM_JOB_ID" in variables:
        return "Ask for more in the job.", ("#SBATCH --cpus-per-task=8",)
    if host.core_quota is not None and host.core_quota < 2:
        return "The container's limit is too low: raise it.", ("docker run --cpus 8 …",)
    if host.usable_cores < host.cores:
        return "The process is bound to them (taskset, cpuset): unbind it.", (f"taskset -pc 0-{host.cores - 1} $$",)
    return "Take a machine with more.", ()
