"""What a compiler says of a program: operations, bytes, memory, and what the devices say to one another."""

import math
import re
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

# The share of an array that passes each device's links, for an array of which every device ends with (all-reduce,
# all-gather) or started with (reduce-scatter) the whole, on rings of n devices.
_PASSES: dict[str, Callable[[int], float]] = {
    "all-reduce": lambda n: 2 * (n - 1) / n,
    "all-gather": lambda n: (n - 1) / n,
    "reduce-scatter": lambda n: n - 1,  # of its result, which is what the program's text shows
    "all-to-all": lambda n: (n - 1) / n,
    "collective-permute": lambda n: 1,
    "collective-broadcast": lambda n: 1,
}
_CALL = re.compile(rf" = (.+?) ({'|'.join(_PASSES)})(-start)?\(")
_HEAD = re.compile(r"(?:ENTRY )?%?([\w.-]+) .*\{$")  # a computation's first line
_CALLED = re.compile(r"\b(?:calls|to_apply|body)=%?([\w.-]+)")
_BODY = re.compile(r" while\(.*\bbody=%?([\w.-]+)")
_ARRAY = re.compile(r"(pred|[a-z]+\d+)(?:e\d+m\d+\w*)?\[([\d,]*)\]")
_NO_ROOM = "RESOURCE_EXHAUSTED"


@dataclass(frozen=True)
class Collective:
    count: int
    nbytes: int  # of their results on each device


@dataclass(frozen=True, kw_only=True)
class Program:
    """One compiled program, per device."""

    flops: float
    nbytes: float  # that operations read and write, what a fusion keeps in registers left out
    arguments: int  # bytes
    temporaries: int  # bytes
    peak: int  # bytes of memory at most in use at once, arguments and results included
    collectives: dict[str, Collective] = field(default_factory=dict)

    @property
    def all_reduces(self) -> int:
        return self.collectives.get("all-reduce", Collective(0, 0)).count

    def bytes_sent(self, devices: int) -> float:
        """Returns the bytes that each device sends, on rings of `devices`."""
        return sum(kind.nbytes * _PASSES[name](devices) for name, kind in self.collectives.items())


@dataclass(frozen=True)
class Refusal:
    """The compiler found no room for a program."""

    reason: str


def compile_program(lowered: Any, rounds: int = 1) -> Program | Refusal:
    """Compiles what `jax.jit(…).lower(…)` returned; every other failure than a lack of memory is raised.

    `rounds` is how often a loop in it runs: its collectives count so often, but its operations and bytes once, since
    that is how XLA's cost analysis counts them.
    """
    from jax.errors import JaxRuntimeError

    try:
        compiled = lowered.compile()
    except JaxRuntimeError as error:
        if _NO_ROOM not in str(error):
            raise
        return Refusal(_first_sentences(str(error)))
    cost, memory = compiled.cost_analysis(), compiled.memory_analysis()
    return Program(
        flops=cost["flops"],
        nbytes=cost["bytes accessed"],
        arguments=memory.argument_size_in_bytes,
        temporaries=memory.temp_size_in_bytes,
        peak=memory.peak_memory_in_bytes,
        collectives=collectives(compiled.as_text(), rounds),
    )


def collectives(text: str, rounds: int = 1) -> dict[str, Collective]:
    """Counts the collectives in an optimised program's text and adds up the bytes of their results.

    One inside a loop is counted `rounds` times.
    """
    looped = _in_loops(text)
    found: dict[str, list[int]] = defaultdict(list)
    times = 1
    for line in text.splitlines():
        if head := _HEAD.match(line):
            times = rounds if head[1] in looped else 1
        for shape, name, start in _CALL.findall(line):
            sizes = [_nbytes(kind, sides) for kind, sides in _ARRAY.findall(shape)]
            if start and name in ("all-gather", "collective-permute"):
                sizes = [max(sizes)]  # its operand stands beside its result
            found[name] += times * [sum(sizes)]
    return {name: Collective(len(sizes), sum(sizes)) for name, sizes in found.items()}


def _in_loops(text: str) -> set[str]:
    """Returns the names of the computations that are a loop's body, or called from one."""
    called: dict[str, list[str]] = defaultdict(list)
    name = ""
    for line in text.splitlines():
        if head := _HEAD.match(line):
            name = head[1]
        called[name] += _CALLED.findall(line)
    found: set[str] = set()
    waiting = _BODY.findall(text)
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting += called[name]
    return found


def _nbytes(kind: str, sides: str) -> int:
    bits = 8 if kind == "pred" else int(re.sub(r"\D", "", kind))
    return math.prod(int(side) for side in sides.split(",") if side) * bits // 8


def _first_sentences(message: str) -> str:
    """Returns what the compiler says of the memory it would need, without the list of buffers that follows."""
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    return " ".join(lines[0].partition(": ")[2].split()) or lines[0]
