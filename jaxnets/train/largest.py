"""The largest batch that fits, asked for as seldom as can be: each question compiles a program."""

import math
from collections.abc import Callable
from dataclasses import dataclass

_TRIES = 8
_FIRST_STEP = 4  # times the first batch, that is asked for where one was not enough to know how memory grows
_STRAIGHT = 5  # questions after which what lies between is halved: it is no straight line
_FINENESS = 32  # grains of a batch, at least


@dataclass(frozen=True, kw_only=True)
class Found:
    size: int | None  # the largest that is known to fit; None: none does
    need: float | None  # bytes that it takes, or that the smallest takes where none fits; None: not known
    refused: int | None  # the smallest that is known not to fit
    asked: int  # how many questions it took


def largest_batch(
    need: Callable[[int], float | None],
    room: float,
    *,
    fixed: float,
    quantum: int,
    first: int,
    most: int,
    tries: int = _TRIES,
) -> Found:
    """Returns the largest batch for which `need(batch)` is at most `room`.

    What a step needs grows nearly in a straight line with its batch: where the line meets the room is seen from one
    batch and from what none goes without, and asked next. From there on it goes on between what fits and what does not.
    What is found is a multiple of `quantum`, and at most a grain below the largest as far as the line is straight: a
    32nd of it, or `quantum` where that is more.

    Args:
        need: bytes of a batch; None where the compiler finds no place for it and does not say how much it wants.
        room: bytes.
        fixed: bytes that do not grow with the batch.
        quantum: what every batch is a multiple of.
        first: where to begin.
        most: no batch is larger.
        tries: questions at most.
    """
    most = max(most // quantum, 1) * quantum
    known: dict[int, float | None] = {}
    candidate: int | None = min(max(first // quantum, 1) * quantum, most)
    while candidate is not None and len(known) < tries:
        known[candidate] = need(candidate)
        candidate = _next(known, room, fixed, quantum, most)
    fits, refused = _bracket(known, room)
    shown = fits if fits is not None else min(known)
    return Found(size=fits, need=known[shown], refused=refused, asked=len(known))


def _bracket(known: dict[int, float | None], room: float) -> tuple[int | None, int | None]:
    fitting = [size for size, need in known.items() if need is not None and need <= room]
    low = max(fitting, default=None)
    return low, min((size for size in known if size not in fitting and size > (low or 0)), default=None)


def _next(known: dict[int, float | None], room: float, fixed: float, quantum: int, most: int) -> int | None:
    """Returns the next batch to ask for; None where what is known will do."""
    low, high = _bracket(known, room)
    if high == quantum or low == most:
        return None
    guess = _crossing(known, room, fixed)
    if low is None:
        assert high is not None
        return max(_rounded(high / 2 if guess is None else min(guess, high / 2), quantum), quantum)
    grain = _grain(low, quantum)
    if high is None:
        aim = min(_rounded(guess or _FIRST_STEP * low, quantum), most)
        return aim if aim > low else None
    if high - low <= grain:
        return None
    if guess is None or known[high] is None or len(known) >= _STRAIGHT:
        guess = math.sqrt(low * high) if high > 4 * low else (low + high) / 2
    return min(max(_rounded(guess, quantum), low + grain), high - grain)


def _crossing(known: dict[int, float | None], room: float, fixed: float) -> float | None:
    """Returns where the line through the two batches nearest to the room meets it; None where there is no line."""
    points = {0: fixed, **{size: need for size, need in known.items() if need is not None}}
    if len(points) < 2:
        return None
    (a, low), (b, high) = sorted(sorted(points.items(), key=lambda point: abs(point[1] - room))[:2])
    return a + (room - low) * (b - a) / (high - low) if high > low else None


def _grain(size: int, quantum: int) -> int:
    """Returns the step between batches of about that size: a power of two of quanta, a 32nd of it at most."""
    quanta = max(size // quantum // _FINENESS, 1)
    return quantum * (1 << (quanta.bit_length() - 1))


def _rounded(size: float, quantum: int) -> int:
    grain = _grain(int(size), quantum)
    return int(size) // grain * grain
