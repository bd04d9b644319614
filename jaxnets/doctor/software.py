"""Judges the software: versions that fit together, TensorFlow, and settings that cost speed or memory."""

import re
from collections.abc import Mapping

from jaxnets.doctor.machine import Finding, Gpu, Machine, Wanted

# https://docs.nvidia.com/cuda/cuda-toolkit-release-notes: the oldest driver for each major version of CUDA.
_OLDEST_DRIVER = {12: 525, 13: 580}
_GIB = 2**30


def check_versions(machine: Machine, wanted: Wanted) -> list[Finding]:
    packages = machine.packages
    if "jax" not in packages or "jaxlib" not in packages:
        missing = " and ".join(name for name in ("jax", "jaxlib") if name not in packages)
        return [
            Finding(
                check="versions",
                level="fault",
                found=f"{missing} is not installed in this Python ({machine.python})",
                remedy="Install jaxnets, or activate the environment that it is in.",
                commands=("pip install -e .",),
            )
        ]
    jax, jaxlib = packages["jax"], packages["jaxlib"]
    found = []
    if _release(jax)[:2] < _release(jaxlib)[:2] or _release(jaxlib) < (0, 10):
        found.append(_misfit(f"jax {jax} and jaxlib {jaxlib} do not fit together", "jax jaxlib"))
    plugins = {name: version for name, version in packages.items() if name.startswith("jax-cuda")}
    for name, version in plugins.items():
        if _release(version) != _release(jaxlib):
            found.append(_misfit(f"{name} {version} does not fit jaxlib {jaxlib}", f"jaxlib {name}"))
    if len({_cuda_of(name) for name in plugins}) > 1:
        names = " ".join(sorted(plugins))
        found.append(
            Finding(
                check="versions",
                level="fault",
                found=f"JAX's plugins for two versions of CUDA are installed: {names}",
                remedy="Keep one.",
                commands=(f"pip uninstall -y {names}", "pip install -r requirements-gpu.txt"),
            )
        )
    libtpu, wish = packages.get("libtpu"), machine.wanted_libtpu
    if libtpu and wish and not _is_of(libtpu, wish):
        found.append(_misfit(f"libtpu {libtpu} is not the one that jax {jax} was made for ({wish})", "jax[tpu]"))
    if found:
        return found
    others = [f"{name} {version}" for name, version in packages.items() if name in ("flax", "libtpu", *plugins)]
    text = ", ".join([f"JAX {jax}", f"jaxlib {jaxlib}", *others, f"Python {machine.python}", machine.system])
    return [Finding(check="versions", level="fine", found=text)]


def check_cuda(machine: Machine, wanted: Wanted) -> list[Finding]:
    """Compares the driver with the CUDA that JAX brings, and the cuDNN that was loaded with the one that it needs."""
    found = []
    if machine.hardware.gpus:
        driver = machine.hardware.gpus[0].driver
        for cuda in {_cuda_of(name) for name in machine.packages if name.startswith("jax-cuda")} & set(_OLDEST_DRIVER):
            if _release(driver)[0] < _OLDEST_DRIVER[cuda]:
                older = min(_OLDEST_DRIVER)
                fits = _release(driver)[0] >= _OLDEST_DRIVER[older] and cuda != older
                found.append(
                    Finding(
                        check="CUDA",
                        level="fault",
                        found=f"the driver is {driver}, and CUDA {cuda} needs {_OLDEST_DRIVER[cuda]} or newer",
                        remedy=f"Install JAX for CUDA {older}." if fits else "Install a newer NVIDIA driver.",
                        commands=(f'pip install "jax[cuda{older}]"',) if fits else (),
                    )
                )
    text = "\n".join([machine.probe.messages, *machine.probe.errors.values()])
    paths = [path for path in machine.environment.get("LD_LIBRARY_PATH", "").split(":") if re.search("cud", path)]
    mismatch = re.search(r"Loaded runtime CuDNN library: ([\d.]+\d).*?compiled with: ([\d.]+\d)", text, re.DOTALL)
    if mismatch:
        old, needed = mismatch.groups()
        found.append(
            Finding(
                check="cuDNN",
                level="fault",
                found=f"cuDNN {old} was loaded, and JAX needs {needed}",
                remedy=f"LD_LIBRARY_PATH leads to another ({':'.join(paths)}): unset it."
                if paths
                else "Install the one that fits.",
                commands=("unset LD_LIBRARY_PATH",) if paths else ("pip install -U -r requirements-gpu.txt",),
            )
        )
    elif paths and machine.hardware.gpus:
        found.append(
            Finding(
                check="CUDA",
                level="note",
                found=f"LD_LIBRARY_PATH leads to a CUDA of its own ({':'.join(paths)}), before the one that JAX brings",
                remedy="Unset it if JAX fails to start or complains of versions.",
                commands=("unset LD_LIBRARY_PATH",),
            )
        )
    return found


def check_tensorflow(machine: Machine, wanted: Wanted) -> list[Finding]:
    """TensorFlow takes all memory of a GPU, or the TPU, as soon as a process that imported it looks at the devices."""
    installed = {name: v for name, v in machine.packages.items() if name.startswith(("tensorflow", "tf"))}
    if not installed:
        return []
    text = ", ".join(f"{name} {version}" for name, version in installed.items())
    uninstall = (f"pip uninstall -y {' '.join(installed)}",)
    importer = machine.probe.tensorflow_importer
    if importer:
        return [
            Finding(
                check="TensorFlow",
                level="fault" if machine.probe.platform != "cpu" else "note",
                found=f"{text} is installed, and {importer} imports it into the training: it takes the accelerator, or "
                "its memory, from JAX, and seconds of each start",
                remedy="jaxnets needs no TensorFlow: remove it from this environment.",
                commands=uninstall,
            )
        ]
    return [
        Finding(
            check="TensorFlow",
            level="note",
            found=f"{text} is installed. Training does not import it, but another program or a notebook's kernel that "
            "does takes the TPU, or all of a GPU's memory",
            remedy="Keep it out of the kernel that trains, or remove it from this environment.",
            commands=uninstall,
        )
    ]


def check_gpu_memory(machine: Machine, wanted: Wanted) -> list[Finding]:
    """JAX takes 75 % of a GPU's memory at its start, unless a variable says otherwise."""
    hardware, variables = machine.hardware, machine.environment
    gpus = _visible(hardware.gpus, variables)
    if not gpus or machine.probe.platform not in ("gpu", None):
        return []
    found = []
    preallocates = variables.get("XLA_PYTHON_CLIENT_PREALLOCATE", "true").lower() not in ("false", "0")
    given = variables.get("XLA_CLIENT_MEM_FRACTION") or variables.get("XLA_PYTHON_CLIENT_MEM_FRACTION") or ""
    share = float(given) if re.fullmatch(r"0*\.\d+|1(\.0*)?", given) else 0.75
    for gpu in gpus:
        if gpu.used > (1 - share) * gpu.memory:
            others = ", ".join(f"{process.pid} ({process.command})" for process in hardware.gpu_holders)
            found.append(
                Finding(
                    check="GPU memory",
                    level="fault",
                    found=f"GPU {gpu.index} ({gpu.name}): "
                    + f"{gpu.used / _GIB:.1f} of {gpu.memory / _GIB:.1f} GiB are taken"
                    + (f", by {others}" if others else "")
                    + f"; JAX wants {share:.0%}" * preallocates,
                    remedy="End what takes it, or tell JAX to take less.",
                    commands=(f"export XLA_CLIENT_MEM_FRACTION={max(0.05, 0.95 - gpu.used / gpu.memory):.2f}",),
                )
            )
    if variables.get("XLA_PYTHON_CLIENT_ALLOCATOR") == "platform":
        found.append(
            Finding(
                check="GPU memory",
                level="fault",
                found="XLA_PYTHON_CLIENT_ALLOCATOR=platform asks the driver for every array, which is very slow",
                remedy="Unset it.",
                commands=("unset XLA_PYTHON_CLIENT_ALLOCATOR",),
            )
        )
    elif not preallocates:
        found.append(
            Finding(
                check="GPU memory",
                level="note",
                found="memory is not taken beforehand (XLA_PYTHON_CLIENT_PREALLOCATE), and may break into pieces",
                remedy="Unset it where the GPU is all yours.",
                commands=("unset XLA_PYTHON_CLIENT_PREALLOCATE",),
            )
        )
    return found or [
        Finding(check="GPU memory", level="fine", found=f"free, and JAX takes {share:.0%} of it at its start")
    ]


def _visible(gpus: tuple[Gpu, ...], variables: Mapping[str, str]) -> tuple[Gpu, ...]:
    """Returns the GPUs that CUDA_VISIBLE_DEVICES names, by number or by the beginning of their UUID; all without it."""
    if "CUDA_VISIBLE_DEVICES" not in variables:
        return gpus
    names = [name.strip() for name in variables["CUDA_VISIBLE_DEVICES"].split(",")]
    prefixes = tuple(name for name in names if name.startswith("GPU-"))
    return tuple(gpu for gpu in gpus if str(gpu.index) in names or gpu.uuid.startswith(prefixes))


def check_settings(machine: Machine, wanted: Wanted) -> list[Finding]:
    """Looks for variables that are meant for debugging."""
    slow = {
        "JAX_DISABLE_JIT": "nothing is compiled",
        "JAX_DEBUG_NANS": "every result is fetched and looked at",
        "JAX_DEBUG_INFS": "every result is fetched and looked at",
        "JAX_ENABLE_X64": "arrays may become float64",
    }
    on = [name for name in slow if machine.environment.get(name, "").lower() in ("1", "true", "yes", "on")]
    return [
        Finding(
            check="settings",
            level="note" if name == "JAX_ENABLE_X64" else "fault",
            found=f"{name} is set: {slow[name]}",
            remedy="It is for debugging: unset it.",
            commands=(f"unset {name}",),
        )
        for name in on
    ]


def _misfit(found: str, names: str) -> Finding:
    return Finding(
        check="versions",
        level="fault",
        found=found,
        remedy="Install them together.",
        commands=(f'pip install -U "{names}"' if "[" in names else f"pip install -U jax {names.replace('jax ', '')}",),
    )


def _is_of(version: str, wish: str) -> bool:
    """Whether a version is the one wished for; 0.0.42 and 0.0.42.1 are both of `0.0.42.*`."""
    return f"{version}.".startswith(wish.removesuffix("*")) if wish.endswith(".*") else version == wish


def _cuda_of(plugin: str) -> int:
    match = re.search(r"cuda(\d+)", plugin)
    return int(match[1]) if match else 0


def _release(version: str) -> tuple[int, ...]:
    """Returns `(0, 10, 2)` for `0.10.2.dev1+x`."""
    return tuple(int(part) for part in re.findall(r"\d+", re.split(r"[^0-9.]", version)[0])) or (0,)
