"""A thread that sees what the training thread cannot while it waits: a wish to stop elsewhere, a lost host, a hang."""

import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import jax

from jaxnets import exit
from jaxnets.errors import TryAgain
from jaxnets.train.hosts import Hosts, broke_off
from jaxnets.train.stop import Stop

_AGAIN = "Run the same command again, on as many hosts as there are: it goes on from the newest checkpoint"
_TICK = 0.5  # seconds. Ticks are what is counted: a process that is suspended counts nothing
_ALIVE_TICKS = 4  # between two signs of life
_SILENT_TICKS = 120  # after which another process is taken for dead; JAX's own heartbeat takes 100 s
_FAILURES = 6  # of the coordination service, in a row, after which process 0 is taken for dead
_FAREWELL_TICKS = 20  # that a process which fails waits for others to have heard of it

Leave = Callable[[str, int], None]


def _leave(message: str, status: int) -> None:
    """Ends the process whatever its other threads wait for."""
    print(f"error: {message}", file=sys.stderr, flush=True)
    os._exit(status)


class Watch:
    """Watches while the training thread computes, compiles or waits for others; `leave` ends the process."""

    def __init__(self, stop: Stop, hosts: Hosts, hang_minutes: float | None, leave: Leave = _leave) -> None:
        self._stop, self._hosts, self._leave = stop, hosts, leave
        self._patience = None if hang_minutes is None else max(1, round(60 * hang_minutes / _TICK))
        self._idle: int | None = None  # ticks since the last sign of progress
        self._told, self._failing = False, False
        self._ticks, self._failures = 0, 0
        self._seen: dict[int, tuple[str, int]] = {}  # by process: its last sign of life, and the tick it was new at
        self._over = threading.Event()

    def progress(self) -> None:
        """Tells that something was finished; from the first time on, a hang is looked for."""
        self._idle = 0

    def tick(self) -> None:
        """Looks once."""
        self._ticks += 1
        if self._idle is not None and self._patience is not None:
            self._idle += 1
            if self._idle > self._patience:
                minutes = self._patience * _TICK / 60
                self._leave(
                    f"nothing was finished for {minutes:g} minutes: a device or a host hangs. Run the same command "
                    f"again: it goes on from the newest checkpoint. Raise config.hang_minutes if a step takes so long",
                    TryAgain.status,
                )
        if self._hosts.several:
            try:
                self._look_around()
                self._failures = 0
            except jax.errors.JaxRuntimeError:
                self._failures += 1
                if self._failures > _FAILURES:
                    self._lost(0)

    def failed(self, error: BaseException) -> None:
        """Tells the other processes why this one ends, and gives them time to hear it."""
        self._failing = True
        status = getattr(error, "status", TryAgain.status if broke_off(error) else 1)
        with suppress(jax.errors.JaxRuntimeError):
            self._hosts.tell(f"failed/{self._hosts.process}", f"{status} {str(error) or type(error).__name__}")
            for _ in range(_FAREWELL_TICKS):
                if len({*self._hosts.told("left"), *self._hosts.told("failed")}) >= self._hosts.processes:
                    return
                self._over.wait(_TICK)

    def run(self) -> None:
        while not self._over.wait(_TICK):
            self.tick()

    def close(self) -> None:
        self._over.set()

    def _look_around(self) -> None:
        if self._ticks % _ALIVE_TICKS == 0:
            self._hosts.tell(f"alive/{self._hosts.process}", str(self._ticks))
            signs = self._hosts.told("alive")
            for process in range(self._hosts.processes):  # one may die before it ever gave a sign
                sign = signs.get(str(process), "")
                last, since = self._seen.get(process, ("", 0))
                if sign != last:
                    self._seen[process] = (sign, self._ticks)
                elif self._ticks - since > _SILENT_TICKS:
                    self._lost(process)
        for failed, text in self._hosts.told("failed").items():
            if not self._failing:
                self._hosts.tell(f"left/{self._hosts.process}", "")
                status, _, why = text.partition(" ")
                self._leave(f"process {failed} ended: {why}", int(status))
        if self._stop and not self._told:
            self._hosts.tell(f"stop/{self._hosts.process}", str(self._stop.signal or 0))
            self._told = True
        elif not self._stop:
            for number in self._hosts.told("stop").values():
                self._stop.heard(int(number) or None)

    def _lost(self, process: int) -> None:
        self._leave(
            f"process {process} no longer answers. {_AGAIN}",
            TryAgain.status,
        )


@contextmanager
def watching(watch: Watch, hosts: Hosts) -> Iterator[None]:
    """Watches in a thread. What is raised is told to the other processes, since they would wait for this one.

    Raises:
        TryAgain: where the connection to the others broke.
    """
    thread = threading.Thread(target=watch.run, name="jaxnets: watch", daemon=True)
    thread.start()
    if hosts.several:
        exit.end_at_once()  # an orderly end waits for the others, who may be gone; `part` has waited for the rest
    try:
        yield
        hosts.part()
    except BaseException as error:
        if hosts.several:
            watch.failed(error)
        if hosts.several and broke_off(error):
            raise TryAgain(
                f"the work with the other processes broke off ({str(error).strip().splitlines()[0][:200]}). {_AGAIN}"
            ) from error
        raise
    finally:
        watch.close()
        thread.join()
