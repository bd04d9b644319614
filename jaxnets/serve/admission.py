"""Whether one more request is answered in time: overload is shed, being busy is not."""

import time
from collections.abc import Callable

_STANDING = 1.0  # seconds of more waiting than the bound allows, after which a service is overloaded
_CALM = 0.9  # seconds from a refusal, after which it no longer may be: who obeys Retry-After is back in 1 s
_CLIENTS = 8  # images that may wait wherever they take no longer than _PATIENCE times the bound
_PATIENCE = 2.5


class Overloaded(Exception):
    """More is waiting than can be answered in time."""

    def __init__(self, message: str, seconds: float) -> None:
        super().__init__(message)
        self.seconds = seconds  # until there is room, about


class Admission:
    """Bounds what waits by time × measured speed once a service is overloaded, and by a burst until then.

    What may wait in an overloaded service is what it computes in `wait` seconds; but at least 8 images, if they take
    no longer than 2.5 × `wait`, and 2 for each worker: one that is computed and one that is next. A service that is
    not overloaded takes a burst besides: that many images, as far as they take no longer than `burst_seconds`. It is
    overloaded from the moment that it must refuse something, or when more than the first bound has waited for a
    second without a break; and no longer when a request finds nothing waiting and the latest refusal is a second ago.
    So clients that arrive together are all answered; the price is that a lasting overload begins with a burst that
    waits longer than `wait`.

    Args:
        wait: seconds that an image should wait, at most.
        capacity: images without an answer, at most, whatever they take.
        burst: images that may wait while there is no overload.
        burst_seconds: that they may take.
        workers: that compute side by side.
        clock: in seconds.
    """

    def __init__(
        self,
        *,
        wait: float,
        capacity: int,
        burst: int = 0,
        burst_seconds: float = 0.0,
        workers: int = 1,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.overloaded = False
        self._wait = wait
        self._capacity = capacity
        self._burst = burst
        self._burst_seconds = burst_seconds
        self._workers = workers
        self._clock = clock
        self._within = clock()  # when no more than the lasting bound was waiting, at last
        self._refused = self._within  # when something was, at last

    def lasting(self, seconds: float) -> float:
        """Returns how many images may wait in an overloaded service, each of which takes it some seconds."""
        by_time = self._wait / max(seconds, 1e-9)
        return min(self._capacity, max(by_time, min(_CLIENTS, _PATIENCE * by_time), 2 * self._workers))

    def refuse(self, waiting: int, count: int, seconds: float) -> Overloaded | None:
        """Returns why so many more images have no room now, or None where they have.

        A service in which nothing waits takes any number.
        """
        now = self._clock()
        lasting = self.lasting(seconds)
        if waiting <= lasting:
            self._within = now
        if self.overloaded:
            self.overloaded = waiting > 0 or now - self._refused < _CALM
        else:
            self.overloaded = now - self._within > _STANDING
        burst = min(self._burst, self._burst_seconds / max(seconds, 1e-9), self._capacity)
        bound = lasting if self.overloaded else max(lasting, burst)
        excess = waiting + count - bound
        if not waiting or excess <= 0:
            return None
        self.overloaded = True
        self._refused = now
        return Overloaded(
            f"{waiting} images wait and {int(bound)} may, by the latency that is allowed ({self._wait:.3g} s) × the "
            f"speed that is measured ({1 / max(seconds, 1e-9):.3g} images/s), after a burst of {int(burst)}: "
            "try again as Retry-After says",
            max(excess * seconds, 1e-3),
        )
