"""All checks in the order in which they are shown: each a pure function from a machine to findings."""

from collections.abc import Callable

from jaxnets.doctor.devices import check_backend, check_devices, check_tpu_lock
from jaxnets.doctor.machine import Finding, Machine, Wanted
from jaxnets.doctor.resources import check_cache, check_cores, check_memory, check_workdir
from jaxnets.doctor.software import check_cuda, check_gpu_memory, check_settings, check_tensorflow, check_versions

Check = Callable[[Machine, Wanted], list[Finding]]
CHECKS: tuple[Check, ...] = (
    check_versions,
    check_devices,
    check_backend,
    check_tpu_lock,
    check_cuda,
    check_gpu_memory,
    check_tensorflow,
    check_settings,
    check_cores,
    check_memory,
    check_workdir,
    check_cache,
)


def examine(machine: Machine, wanted: Wanted) -> list[Finding]:
    """Returns what every check has to say; a run would suffer from those whose level is `fault`."""
    return [finding for check in CHECKS for finding in check(machine, wanted)]
