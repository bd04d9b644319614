"""The processes of one run: how they find each other, and how they agree on what each could decide differently.

What a step computes is the same on all of them. What comes from outside, a signal, a clock, a disk, is seen by one, and
must become a decision of all at the same step: else one waits in a collective for others that have left. Process 0
decides; the decisions go through JAX's coordination service, apart from the devices.
"""

import itertools
import logging
import os
import re
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import jax

from jaxnets.config import DistributedConfig
from jaxnets.errors import TryAgain, UserError
from jaxnets.train.relay import Relay

_log = logging.getLogger(__name__)

AGAIN = "Run the same command again, on as many hosts as there are: it goes on from the newest checkpoint"
_PREFIX = "jaxnets/"
_KEPT = 1000  # decisions; no process is as far behind
_PARTING = 60  # seconds
_HEARTBEAT = 3600  # seconds; Watch misses a process much sooner, and ends with a message where this would abort
_LATER = 3600  # seconds after which JAX would abort a start; ours is over by then
_NEVER = 7 * 24 * 3600 * 1000  # ms: others may have much to compile; Watch ends the wait for one that is gone

_leaving = threading.Lock()
# Keys can be set once, and a process may train several times; all processes count alike, as they run the same program.
_sessions = itertools.count()
_relay: Relay | None = None  # to process 0, which JAX has one of, too


def leave(message: str, status: int) -> None:
    """Ends the process whatever its other threads wait for."""
    _leaving.acquire()  # for good: there is one message
    if _relay:
        _relay.keep_only_what_is_open()
    print(f"error: {message}", file=sys.stderr, flush=True)
    os._exit(status)


def join(spec: DistributedConfig) -> "Hosts":
    """Joins the other processes, where the config or the environment says that there are others.

    The addresses come from `spec`, or else from TPU pods, SLURM, Open MPI or Kubernetes, as JAX finds them. It must be
    called before anything asks JAX for devices. The process ends with `TryAgain.status` where the others are not there
    in time, and from then on where process 0 goes.

    Raises:
        UserError: if the addresses cannot be right.
    """
    global _relay
    if spec.coordinator is None and not _others_around():
        return Hosts()
    # Its handler of SIGTERM would replace ours, and knows nothing of clocks.
    jax.config.update("jax_enable_preemption_service", False)
    with _in_time(spec):
        try:
            given = _addresses(spec)
            if given["process_id"]:
                host, _, port = given["coordinator_address"].rpartition(":")
                _relay = Relay(host.strip("[]"), int(port), lambda: leave(no_answer(0), TryAgain.status))
                given["coordinator_address"] = _relay.address
            jax.distributed.initialize(
                **given,
                cluster_detection_method="deactivate",
                initialization_timeout=_LATER,
                heartbeat_timeout_seconds=_HEARTBEAT,
            )
        except (RuntimeError, ValueError) as error:
            raise UserError(
                f"the other processes of this run cannot be joined ({str(error).splitlines()[0]}): {_START_ALL}"
            ) from error
        if _relay:
            _relay.keep_only_what_is_open()
    return Hosts()


_START_ALL = (
    "start all of them, with the same config.distributed.coordinator and config.distributed.processes, each with a "
    "config.distributed.process of its own"
)


def no_answer(process: int) -> str:
    return f"process {process} no longer answers. {AGAIN}"


@contextmanager
def _in_time(spec: DistributedConfig) -> Iterator[None]:
    """Ends the process where the block lasts for longer than a start may; JAX's own way would be to abort."""

    def give_up() -> None:
        found = f"process 0 cannot be reached ({_relay.obstacle})" if _relay and _relay.obstacle else "some are missing"
        leave(
            f"the processes of this run did not meet within {spec.start_minutes:g} minutes: {found}. Run the same "
            f"command again: {_START_ALL}. Raise config.distributed.start_minutes if starting them takes so long",
            TryAgain.status,
        )

    timer = threading.Timer(60 * spec.start_minutes, give_up)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


_ADDRESS = ("coordinator_address", "num_processes", "process_id", "local_device_ids")  # as JAX calls them


def _addresses(spec: DistributedConfig) -> dict[str, Any]:
    """Returns what JAX has to know of the processes: from `spec`, or as JAX itself finds it."""
    if spec.coordinator is not None:
        return dict(zip(_ADDRESS[:3], (spec.coordinator, spec.processes, spec.process), strict=True))
    from jax._src.clusters import ClusterEnv

    found = ClusterEnv.auto_detect_unset_distributed_params(None, None, None, None, None, _LATER)
    return dict(zip(_ADDRESS, found, strict=True))


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


def place_among_others() -> tuple[int, int]:
    """Returns the number of this process and how many there are, as the environment says; (0, 1) where it is alone.

    They are not joined: for work that is divided beforehand.
    """
    if not _others_around():
        return 0, 1
    found = _addresses(DistributedConfig())
    return found["process_id"], found["num_processes"]


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
        self._session = next(_sessions)

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
        key = f"{_PREFIX}decided/{self._session}/{name}"
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
        here = f"{_PREFIX}asked/{self._session}/{name}/"
        self._client.key_value_set(f"{here}{self.process}", str(int(own)))
        return bool(
            self.decide(
                name,
                lambda: all(
                    int(self._client.blocking_key_value_get(f"{here}{i}", _NEVER)) for i in range(self.processes)
                ),
            )
        )

    def end_together(self) -> None:
        """Returns when all processes have come here, on process 0 when the others are about to end."""
        if not self.several:
            return
        self._client.wait_at_barrier(f"{_PREFIX}end", 1000 * _PARTING)
        if not self.leads:
            if _relay:
                _relay.close()
            self.publish(f"gone/{self.process}", "")
            return
        end = time.monotonic() + _PARTING  # the service lives in this process, and its end would be theirs
        while len(self.published("gone")) < self.processes - 1 and time.monotonic() < end:
            time.sleep(0.1)
        time.sleep(0.5)

    def publish(self, name: str, text: str) -> None:
        """Leaves a text for all processes under a name."""
        self._client.key_value_set(_PREFIX + name, text, allow_overwrite=True)

    def published(self, folder: str) -> dict[str, str]:
        """Returns the texts under `folder`/…, by the rest of their names."""
        found = self._client.key_value_dir_get(f"{_PREFIX}{folder}/")
        return {key.rpartition("/")[2]: text for key, text in found}
