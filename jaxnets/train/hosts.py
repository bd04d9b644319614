"""The processes of one run: how they find each other, and how they agree on what each could decide differently.

What a step computes is the same on all of them. What comes from outside, a signal, a clock, a disk, is seen by one, and
must become a decision of all at the same step: else one waits in a collective for others that have left. Process 0
decides; the decisions go through JAX's coordination service, apart from the devices.
"""

import logging
import os
import re
import time
from collections import deque
from collections.abc import Callable
from typing import Any

import jax

from jaxnets.config import DistributedConfig
from jaxnets.errors import UserError

_log = logging.getLogger(__name__)

_PREFIX = "jaxnets/"
_KEPT = 1000  # decisions; no process is as far behind
_PARTING = 60  # seconds
_HEARTBEAT = 3600  # seconds; Watch misses a process much sooner, and ends with a message where this would abort
_NEVER = 7 * 24 * 3600 * 1000  # ms: others may have much to compile; Watch ends the wait for one that is gone


def join(spec: DistributedConfig) -> "Hosts":
    """Joins the other processes, where the config or the environment says that there are others.

    The addresses come from `spec`, or else from TPU pods, SLURM, Open MPI or Kubernetes, as JAX finds them. It must be
    called before anything asks JAX for devices.

    Raises:
        UserError: if the others cannot be reached.
    """
    given: dict[str, Any] = {}
    if spec.coordinator is not None:
        given = {
            "coordinator_address": spec.coordinator,
            "num_processes": spec.processes,
            "process_id": spec.process,
            "cluster_detection_method": "deactivate",
        }
    elif not _others_around():
        return Hosts()
    # Its handler of SIGTERM would take the place of ours, and knows nothing of clocks.
    jax.config.update("jax_enable_preemption_service", False)
    try:
        jax.distributed.initialize(**given, heartbeat_timeout_seconds=_HEARTBEAT)
    except (RuntimeError, ValueError) as error:
        raise UserError(
            f"the other processes of this run cannot be reached ({str(error).splitlines()[0]}): start all of them, "
            f"with the same config.distributed.coordinator and config.distributed.processes, each with a "
            f"config.distributed.process of its own"
        ) from error
    return Hosts()


def _others_around() -> bool:
    """Returns whether the environment is that of one process among several, as JAX's own detection sees it."""
    from jax._src.clusters import ClusterEnv

    if not _may_be_a_cluster():
        return False
    kinds = [kind for kind in ClusterEnv._cluster_types if not kind.opt_in_only_method]
    try:
        found = next((kind for kind in kinds if kind.is_env_present()), None)
        return found is not None and found.get_process_count() > 1
    except Exception as error:  # whatever a service that is asked, Kubernetes' for instance, answers
        _log.warning("training alone: what looks like a cluster does not say who is in it (%s)", error)
        return False


_SIGNS = (
    "SLURM_STEP_NODELIST",
    "OMPI_MCA_orte_hnp_uri",
    "KUBERNETES_SERVICE_HOST",
    "TPU_WORKER_HOSTNAMES",
    "TPU_PROCESS_ADDRESSES",
)
_CHIPS = ("/dev/accel0", "/dev/vfio/0")  # of a TPU


def _may_be_a_cluster() -> bool:
    """Returns False on the machines of most users, where asking JAX would wait for answers from a network."""
    return any(name in os.environ for name in _SIGNS) or any(map(os.path.exists, _CHIPS))


_OF_THE_RUNTIME = re.compile("(ABORTED|CANCELLED|DEADLINE_EXCEEDED|INTERNAL|UNAVAILABLE|UNKNOWN): ")


def broke_off(error: BaseException) -> bool:
    """Whether an error is that of a collective or of the coordination service, as when another process has gone.

    Reading an array whose computation failed raises a ValueError, with the runtime's words.
    """
    if isinstance(error, ValueError):
        return _OF_THE_RUNTIME.match(str(error)) is not None
    return isinstance(error, jax.errors.JaxRuntimeError)


class Hosts:
    """The processes of this run; a lone one agrees with itself."""

    def __init__(self) -> None:
        from jax._src.distributed import global_state

        self._client: Any = global_state.client
        self.process, self.processes = global_state.process_id, global_state.num_processes
        self._decided = deque[str]()

    @property
    def leads(self) -> bool:
        """Whether this process decides, and writes what is written once."""
        return self.process == 0

    @property
    def several(self) -> bool:
        return self.processes > 1

    def decide(self, name: str, choose: Callable[[], int]) -> int:
        """Returns what `choose` returns on process 0. `name` is used once in a session, by all processes."""
        if not self.several:
            return choose()
        key = f"{_PREFIX}decided/{name}"
        if not self.leads:
            return int(self._client.blocking_key_value_get(key, _NEVER))
        value = choose()
        self._client.key_value_set(key, str(int(value)))
        self._decided.append(key)
        if len(self._decided) > _KEPT:
            self._client.key_value_delete(self._decided.popleft())
        return value

    def all(self, name: str, own: bool) -> bool:
        """Returns whether `own` is True on all processes, when each has come here; `name` as for `decide`."""
        if not self.several:
            return own
        here = f"{_PREFIX}asked/{name}/"
        self._client.key_value_set(f"{here}{self.process}", str(int(own)))
        return bool(
            self.decide(
                name,
                lambda: all(
                    int(self._client.blocking_key_value_get(f"{here}{i}", _NEVER)) for i in range(self.processes)
                ),
            )
        )

    def part(self) -> None:
        """Returns when all processes have come here, on process 0 when the others are about to end."""
        if not self.several:
            return
        self._client.wait_at_barrier(f"{_PREFIX}part", 1000 * _PARTING)
        if not self.leads:
            self.tell(f"gone/{self.process}", "")
            return
        end = time.monotonic() + _PARTING  # the service lives in this process, and its end would be theirs
        while len(self.told("gone")) < self.processes - 1 and time.monotonic() < end:
            time.sleep(0.1)
        time.sleep(0.5)

    def tell(self, name: str, text: str) -> None:
        """Leaves a text for all processes under a name."""
        self._client.key_value_set(_PREFIX + name, text, allow_overwrite=True)

    def told(self, folder: str) -> dict[str, str]:
        """Returns the texts under `folder`/…, by the rest of their names."""
        found = self._client.key_value_dir_get(f"{_PREFIX}{folder}/")
        return {key.rpartition("/")[2]: text for key, text in found}
