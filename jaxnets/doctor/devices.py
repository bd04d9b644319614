"""Judges the devices: which ones JAX has, and why not more or others."""

import re
import signal

from jaxnets.doctor.machine import Finding, Machine, Platform, Wanted

_INSTALL: dict[Platform, str] = {
    "gpu": "pip install -r requirements-gpu.txt",
    "tpu": "pip install -r requirements-tpu.txt",
    "cpu": "pip install -e .",
}
_NAMES: dict[Platform, str] = {"cpu": "CPU", "gpu": "GPU", "tpu": "TPU"}


def check_devices(machine: Machine, wanted: Wanted) -> list[Finding]:
    """Compares what JAX has with what was asked for and with what the machine has."""
    probe = machine.probe
    if probe.platform is None:
        return [_no_devices(machine, wanted)]
    seen = f"{probe.devices} × {probe.device_kind}"
    if probe.local_devices != probe.devices:
        seen += f", {probe.local_devices} of them on this host"
    platform: Platform = wanted.platform or _present(machine) or probe.platform
    if probe.platform != platform:
        asked = f"a {_NAMES[platform]} was asked for" if wanted.platform else f"this machine has a {_NAMES[platform]}"
        reason, remedy, commands = _why_not(machine, platform)
        found = f"{asked}, and JAX runs on {seen}: {reason}"
        return [Finding(check="devices", level="fault", found=found, remedy=remedy, commands=commands)]
    return [_count(machine, wanted, seen)]


def check_backend(machine: Machine, wanted: Wanted) -> list[Finding]:
    """Reports a child that found devices and then failed, crashed or hung on them."""
    probe = machine.probe
    if probe.platform is None or probe.outcome == "finished":
        return []
    return [_ended_early(machine)]


def check_tpu_lock(machine: Machine, wanted: Wanted) -> list[Finding]:
    lock = machine.hardware.tpu_lock
    if lock is None:
        return []
    if lock.holder:
        return [
            Finding(
                check="TPU lock",
                level="fault" if _wants_tpu(machine, wanted) else "note",
                found=f"{lock.path} is locked by process {lock.holder.pid} ({lock.holder.command}): one process at a "
                "time can use the TPU",
                remedy="Let that process end, or end it; in a notebook, restart a kernel that has imported jax.",
                commands=(f"kill {lock.holder.pid}",),
            )
        ]
    blocks = not lock.accessible or "lockfile" in machine.probe.errors.get("tpu", "") + machine.probe.messages
    reason = (
        f"it belongs to {lock.owner}, and this user may not open it"
        if not lock.accessible
        else "a process that was killed left it behind; libtpu takes it over as a rule, older ones refuse"
    )
    return [
        Finding(
            check="TPU lock",
            level="fault" if blocks and _wants_tpu(machine, wanted) else "note",
            found=f"{lock.path} is there and no process is seen to hold it: {reason}",
            remedy="If nothing uses the TPU, remove it.",
            commands=(f"sudo rm {lock.path}" if not lock.accessible else f"rm {lock.path}",),
        )
    ]


def _wants_tpu(machine: Machine, wanted: Wanted) -> bool:
    return wanted.platform == "tpu" or (wanted.platform is None and _present(machine) == "tpu")


def _present(machine: Machine) -> Platform | None:
    """Returns the accelerator that the machine has, whatever JAX says."""
    if machine.hardware.tpu_chips:
        return "tpu"
    return "gpu" if machine.hardware.gpus or machine.hardware.gpu_nodes else None


def _count(machine: Machine, wanted: Wanted, seen: str) -> Finding:
    probe, hardware, variables = machine.probe, machine.hardware, machine.environment
    there = {"tpu": hardware.tpu_chips, "gpu": len(hardware.gpus) or hardware.gpu_nodes}.get(str(probe.platform), 0)
    restriction = next(
        (name for name in ("CUDA_VISIBLE_DEVICES", "TPU_VISIBLE_CHIPS", "TPU_VISIBLE_DEVICES") if name in variables),
        None,
    )
    why = f"{restriction}={variables[restriction]}" if restriction else ""
    if wanted.devices is not None and probe.devices != wanted.devices:
        remedy = "Ask for the number that there is (--devices), or for another machine."
        if restriction:
            remedy = f"Take {why} out of the environment."
        elif probe.platform == "cpu":
            remedy = "More than one CPU device is for tests alone: XLA_FLAGS sets their number."
        commands = (f"unset {restriction}",) if restriction else ()
        found = f"{wanted.devices} devices were asked for, and JAX has {seen}"
        return Finding(check="devices", level="fault", found=found, remedy=remedy, commands=commands)
    if probe.local_devices < there:
        return Finding(
            check="devices",
            level="note" if restriction else "fault",
            found=f"JAX has {seen}, and the machine has {there}" + (f": {why}" if why else ""),
            remedy=f"Unset {restriction} to use them all."
            if restriction
            else "See that no other process and no container limit holds the rest back.",
            commands=(f"unset {restriction}",) if restriction else (),
        )
    if probe.platform == "cpu" and probe.devices > 1 and "host_platform_device_count" in variables.get("XLA_FLAGS", ""):
        return Finding(
            check="devices",
            level="note",
            found=f"{seen}: XLA_FLAGS makes several devices of one CPU, which is slower",
            remedy="Outside of tests, unset it.",
            commands=("unset XLA_FLAGS",),
        )
    return Finding(check="devices", level="fine", found=seen)


def _no_devices(machine: Machine, wanted: Wanted) -> Finding:
    probe = machine.probe
    asked = machine.environment.get("JAX_PLATFORMS")
    if probe.outcome == "failed" and asked and probe.stage == "the start of the devices":
        platform: Platform = "tpu" if "tpu" in asked else "gpu"
        reason, remedy, commands = _why_not(machine, platform)
        return Finding(
            check="devices",
            level="fault",
            found=f"JAX_PLATFORMS={asked} asks for what JAX cannot start: {reason}",
            remedy=remedy,
            commands=(*commands, "unset JAX_PLATFORMS"),
        )
    return _ended_early(machine)


def _ended_early(machine: Machine) -> Finding:
    probe = machine.probe
    commands: tuple[str, ...] = ()
    if probe.outcome == "hung":
        found = f"{probe.stage} did not end within {probe.seconds:.0f} s, and was given up"
        if _present(machine) == "tpu":
            remedy = (
                "One host of a TPU pod waits for all others: run the doctor on all at once. Else, another process may "
                "hold the chips."
            )
            commands = ("launch/tpu_pod.sh doctor",)
        else:
            remedy = "Give it longer if the machine is busy. Else, restart the machine or its runtime."
            commands = ("python -m jaxnets.doctor --timeout 600",)
    elif probe.outcome == "crashed":
        found = f"{probe.stage} ended the process with {_ending(probe.status)}{_last_line(probe.messages)}"
        remedy = "Install JAX and its plugin anew, in an environment of their own."
        commands = ("python -m venv .venv && . .venv/bin/activate", _INSTALL[_present(machine) or "cpu"])
    else:
        found = f"{probe.stage} failed{_last_line(probe.messages)}"
        if "No module named" in probe.messages:
            remedy = "Install jaxnets with what it needs."
        else:
            remedy = "Install versions that fit together."
        commands = (_INSTALL[_present(machine) or "cpu"],)
    return Finding(check="devices", level="fault", found=found, remedy=remedy, commands=commands)


def _ending(status: int | None) -> str:
    if status is not None and status < 0:
        try:
            return f"signal {-status} ({signal.Signals(-status).name})"
        except ValueError:
            return f"signal {-status}"
    return f"status {status}"


def _last_line(messages: str) -> str:
    lines = [line.strip() for line in messages.splitlines() if line.strip()]
    return f": {lines[-1][:300]}" if lines else ""


def _why_not(machine: Machine, platform: Platform) -> tuple[str, str, tuple[str, ...]]:
    """Returns the likeliest reason that JAX does not run on `platform`, the remedy, and its commands."""
    variables, hardware, packages = machine.environment, machine.hardware, machine.packages
    name = _NAMES[platform]
    asked = variables.get("JAX_PLATFORMS", "")
    spoken = {"tpu": ("tpu",), "gpu": ("gpu", "cuda"), "cpu": ("cpu",)}[platform]
    if asked and not set(asked.split(",")) & set(spoken):
        return f"JAX_PLATFORMS={asked} keeps it from the {name}", "Unset it.", ("unset JAX_PLATFORMS",)
    if platform == "cpu":
        return "JAX prefers an accelerator", "Tell it to use the CPU.", ("export JAX_PLATFORMS=cpu",)
    there = hardware.tpu_chips if platform == "tpu" else len(hardware.gpus) or hardware.gpu_nodes
    if not there:
        return f"there is no {name} here", _where_to_get(machine, platform), ()
    plugin = "libtpu" if platform == "tpu" else "jax-cuda"
    if not any(package.startswith(plugin) for package in packages):
        return (
            f"JAX's plugin for the {name} is not installed, and it fell back to the CPU",
            "Install it.",
            (_INSTALL[platform],),
        )
    if platform == "gpu" and variables.get("CUDA_VISIBLE_DEVICES", "0") in ("", "-1"):
        return "CUDA_VISIBLE_DEVICES hides every GPU", "Unset it.", ("unset CUDA_VISIBLE_DEVICES",)
    holders = hardware.tpu_holders if platform == "tpu" else ()
    if holders:
        others = "; ".join(f"{process.pid} ({process.command})" for process in holders)
        return (
            f"another process has the {name}: {others}",
            "Let it end, or end it; in a notebook, restart a kernel that has imported jax or tensorflow.",
            tuple(f"kill {process.pid}" for process in holders),
        )
    error = machine.probe.errors.get(platform, "") or _last_line(machine.probe.messages).removeprefix(": ")
    return f"JAX says: {_shortened(error)}", "Install versions that fit this machine.", (_INSTALL[platform],)


def _shortened(error: str) -> str:
    """Keeps what went wrong of `Backend 'tpu' failed to initialize: …. Available backends are …`."""
    error = re.sub(r"^Backend '\w+' failed to initialize: ", "", error)
    return re.sub(r"\.? Available backends are .*$", "", error, flags=re.DOTALL)[:300] or "nothing"


def _where_to_get(machine: Machine, platform: Platform) -> str:
    name, variables = _NAMES[platform], machine.environment
    if "KAGGLE_KERNEL_RUN_TYPE" in variables:
        return f"In the notebook's settings, choose a {name} under Accelerator."
    if "COLAB_RELEASE_TAG" in variables:
        return f"Choose a {name} under Runtime › Change runtime type."
    if "SLURM_JOB_ID" in variables:
        return "Ask for it in the job, as launch/slurm.sbatch does (--gpus-per-node)."
    if "KUBERNETES_SERVICE_HOST" in variables:
        return "Ask for it in the pod's resources, as launch/gke_jobset.yaml does."
    if platform == "gpu":
        return "Take a machine that has one; a container sees it with `docker run --gpus all`. nvidia-smi must list it."
    return "Take a machine that has one; a container sees it with `docker run --privileged`."
