"""Machines made up: a healthy one, and what is to be changed about it."""

from dataclasses import replace
from typing import Any

from jaxnets.doctor.checks import examine
from jaxnets.doctor.machine import Cache, Directory, Finding, Gpu, Host, Machine, Probe, Wanted

GIB = 2**30
H200 = Gpu(index=0, uuid="GPU-6f1a", name="NVIDIA H200", driver="570.86.15", memory=140 * GIB, used=GIB)
PACKAGES = {"jax": "0.10.2", "jaxlib": "0.10.2", "flax": "0.12.8"}
CPU = Machine(
    system="Linux x86_64",
    python="3.11.7",
    packages=PACKAGES,
    wanted_libtpu="0.0.42.*",
    host=Host(cores=16, usable_cores=16, memory=64 * GIB, available_memory=50 * GIB),
    workdir=Directory(path="runs", measured_in="/home/me", file_system="ext4", free=90 * GIB, bytes_per_second=8e8),
    cache=Cache(path="/home/me/.cache/jaxnets/compiled", programs=3, size=1000),
    probe=Probe(outcome="finished", platform="cpu", device_kind="cpu", devices=1, local_devices=1, status=0),
)
GPU = replace(
    CPU,
    packages={**PACKAGES, "jax-cuda12-plugin": "0.10.2"},
    hardware=replace(CPU.hardware, gpus=(H200,), gpu_nodes=1),
    probe=replace(CPU.probe, platform="gpu", device_kind="NVIDIA H200"),
)
TPU = replace(
    CPU,
    packages={**PACKAGES, "libtpu": "0.0.42.1"},
    hardware=replace(CPU.hardware, tpu_chips=8),
    host=replace(CPU.host, cores=96, usable_cores=96),
    probe=replace(CPU.probe, platform="tpu", device_kind="TPU v5 lite", devices=8, local_devices=8),
)


def changed(machine: Machine, **changes: Any) -> Machine:
    """Returns the machine with `probe__devices=4` and the like changed in it."""
    for key, value in changes.items():
        part, _, name = key.partition("__")
        machine = replace(machine, **{part: replace(getattr(machine, part), **{name: value}) if name else value})
    return machine


def findings(machine: Machine, level: str = "fault", **wanted: Any) -> list[Finding]:
    """Returns the findings of that level."""
    return [finding for finding in examine(machine, Wanted(**wanted)) if finding.level == level]
