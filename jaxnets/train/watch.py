"""Threads that see what the training thread cannot while it waits: a wish to stop elsewhere, a lost host, a hang."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import jax

from jaxnets import exit
from jaxnets.errors import TryAgain
from jaxnets.train.hosts import AGAIN, Hosts, broke_off, leave, no_answer
from jaxnets.train.stop import Stop

_TICK = 0.5  # seconds. Ticks are what is counted: a process that is suspended counts nothing
_ALIVE_LOOKS = 4  # one look around in so many leaves a sign of life
_SILENT_TICKS = 120  # without a sign of life or an answer, after which another process is taken for dead
_FAILURES = 6  # of the coordination service, in a row, after which process 0 is taken for dead
_FAREWELL_TICKS = 20  # that a process which fails waits for others to have heard of it

Leave = Callable[[str, int], None]


class Watch:
    """Watches while the training thread computes, compiles or waits for others; `leave` ends the process."""

    def __init__(self, stop: Stop, hosts: Hosts, hang_minutes: float | None, leave: Leave = leave) -> None:
        self._stop, self._hosts, self._leave = stop, hosts, leave
        self._patience = None if hang_minutes is None else max(1, round(60 * hang_minutes / _TICK))
        self._idle: int | None = None  # ticks since the last sign of progress
        self._stop_published, self._failing = False, False
        self._ticks, self._looks, self._failures = 0, 0, 0
        self._answered = 0  # the tick at which the coordination service last did
        self._seen: dict[int, tuple[str, int]] = {}  # by process: its last sign of life, and the tick it was new at
        self._over = threading.Event()

    def progress(self) -> None:
        """Tells that something was finished; from the first time on, a hang is looked for."""
        self._idle = 0

    def tick(self) -> None:
        """Counts; it waits for nobody, so that it ends what does."""
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
        if self._hosts.several and self._ticks - self._answered > _SILENT_TICKS:
            self._lost(0)

    def look(self) -> None:
        """Asks process 0 how the others are, and says how this one is."""
        try:
            self._look_around()
            self._answered, self._failures = self._ticks, 0
        except jax.errors.JaxRuntimeError:
            self._failures += 1
            if self._failures > _FAILURES:
                self._lost(0)

    def failed(self, error: BaseException) -> None:
        """Tells the other processes why this one ends, and gives them time to hear it."""
        self._failing = True
        status = getattr(error, "status", TryAgain.status if broke_off(error) else 1)
        with suppress(jax.errors.JaxRuntimeError):
            self._hosts.publish(f"failed/{self._hosts.process}", f"{status} {str(error) or type(error).__name__}")
            for _ in range(_FAREWELL_TICKS):
                if len({*self._hosts.published("left"), *self._hosts.published("failed")}) >= self._hosts.processes:
                    return
                self._over.wait(_TICK)

    def run(self) -> None:
        if self._hosts.several:
            threading.Thread(target=self._repeat, args=(self.look,), name="jaxnets: look-out", daemon=True).start()
        self._repeat(self.tick)

    def _repeat(self, body: Callable[[], None]) -> None:
        while not self._over.wait(_TICK):
            body()

    def close(self) -> None:
        self._over.set()

    def _look_around(self) -> None:
        self._looks += 1
        if self._looks % _ALIVE_LOOKS == 0:
            self._hosts.publish(f"alive/{self._hosts.process}", str(self._looks))
            signs = self._hosts.published("alive")
            for process in range(self._hosts.processes):  # one may die before it ever gave a sign
                sign = signs.get(str(process), "")
                last, since = self._seen.get(process, ("", 0))
                if sign != last:
                    self._seen[process] = (sign, self._ticks)
                elif self._ticks - since > _SILENT_TICKS:
                    self._lost(process)
        for failed, text in self._hosts.published("failed").items():
            if not self._failing:
                self._hosts.publish(f"left/{self._hosts.process}", "")
                status, _, why = text.partition(" ")
                self._leave(f"process {failed} ended: {why}", int(status))
        if self._stop and not self._stop_published:
            self._hosts.publish(f"stop/{self._hosts.process}", str(self._stop.signal or 0))
            self._stop_published = True
        elif not self._stop:
            for number in self._hosts.published("stop").values():
                self._stop.heard(int(number) or None)

    def _lost(self, process: int) -> None:
        self._leave(no_answer(process), TryAgain.status)


@contextmanager
def watching(watch: Watch, hosts: Hosts) -> Iterator[None]:
    """Watches in a thread. The other processes hear of what is raised, since they would wait for this one.

    Raises:
        TryAgain: where the connection to the others broke.
    """
    thread = threading.Thread(target=watch.run, name="jaxnets: watch", daemon=True)
    thread.start()
    if hosts.several:
        exit.end_at_once()  # an orderly end waits for the others, who may be gone
    try:
        yield
        hosts.end_together()
    except BaseException as error:
        if hosts.several:
            watch.failed(error)
        if hosts.several and broke_off(error):
            raise TryAgain(
                f"the work with the other processes broke off ({str(error).strip().splitlines()[0][:200]}). {AGAIN}"
            ) from error
        raise
    finally:
        watch.close()
        thread.join()
