"""Plans as rows of text, and as JSON."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from jaxnets.plan.compiled import Program
from jaxnets.plan.planner import StateSize, StepPlan

_NONE = "—"


@dataclass(frozen=True, kw_only=True)
class Plan:
    """All that was found out about a config on one topology with one batch."""

    train: StepPlan
    eval: StepPlan
    state: StateSize
    train_examples: int
    epochs: float
    largest: StepPlan | None = None  # the largest batch that was seen to fit, where one was sought
    refused: StepPlan | None = None  # the smallest that was refused

    @property
    def hours(self) -> float | None:
        """Hours of training steps alone: no evaluation, no input, no start."""
        if not self.train.fits:
            return None
        return self.epochs * self.train_examples / self.train.images_per_second / 3600


def rows(plans: Sequence[Plan]) -> list[list[str]]:
    """Returns the table, a first row of headings included; a column for each plan."""
    table = [["", *(f"{plan.train.topology.name}, batch {plan.train.batch_size:,}" for plan in plans)]]

    def add(title: str, cell: Any) -> None:
        table.append([title, *(cell(plan) for plan in plans)])

    add("chips × devices each", lambda p: f"{p.train.topology.chips} × {p.train.topology.cores}")
    add("per device: parameters, statistics (MB)", lambda p: f"{p.state.variables / 1e6:,.1f}")
    add("per device: optimizer state, average (MB)", lambda p: f"{(p.state.optimizer + p.state.ema) / 1e6:,.1f}")
    for name in ("train", "eval"):
        for title, cell in _STEP_ROWS.items():
            add(f"{name}: {title}", lambda p, name=name, cell=cell: _cell(getattr(p, name), cell))
    add("hours for the epochs, at best", lambda p: _NONE if p.hours is None else f"{p.hours:,.2f} for {p.epochs:g}")
    if any(plan.largest or plan.refused for plan in plans):
        add("largest batch that fits", lambda p: f"{p.largest.batch_size:,}" if p.largest else _NONE)
        add("smallest seen to be refused", lambda p: f"{p.refused.batch_size:,}" if p.refused else _NONE)
    return table


def _cell(step: StepPlan, cell: Any) -> str:
    return cell(step) if isinstance(step.outcome, Program) else _NONE


_STEP_ROWS: dict[str, Any] = {
    "peak memory, of a device's (GB)": lambda s: f"{s.peak / 1e9:.2f} of {s.topology.memory / 1e9:.2f}",
    "temporaries per device (GB)": lambda s: f"{s.program.temporaries / 1e9:.2f}",
    "GFLOP per image": lambda s: f"{s.flops_per_image / 1e9:.2f}",
    "MB accessed per image": lambda s: f"{s.bytes_per_image / 1e6:.1f}",
    "collectives": lambda s: ", ".join(f"{c.count} {name}" for name, c in s.program.collectives.items()) or "none",
    "MB of collectives per device": lambda s: f"{sum(c.nbytes for c in s.program.collectives.values()) / 1e6:.1f}",
    "ms: compute, memory, interconnect": lambda s: ", ".join(f"{1e3 * seconds:.2f}" for seconds in s.seconds.values()),
    "bound by": lambda s: s.bound,
    "images/s, at best": lambda s: f"{s.images_per_second:,.0f}",
}


def as_json(plan: Plan) -> dict[str, Any]:
    """Returns one plan as JSON values; what a step that does not fit cannot have is null."""
    topology = plan.train.topology
    return {
        "topology": topology.name,
        "device_kind": topology.device_kind,
        "chips": topology.chips,
        "devices": len(topology.devices),
        "batch_size": plan.train.batch_size,
        "parameters": plan.state.parameters,
        "variables_bytes": plan.state.variables,
        "optimizer_bytes": plan.state.optimizer,
        "ema_bytes": plan.state.ema,
        "memory_bytes": topology.memory,
        "train": _step_json(plan.train),
        "eval": _step_json(plan.eval),
        "epochs": plan.epochs,
        "train_examples": plan.train_examples,
        "hours_at_best": plan.hours,
        "largest_batch_that_fits": plan.largest.batch_size if plan.largest else None,
        "smallest_batch_refused": plan.refused.batch_size if plan.refused else None,
    }


def _step_json(step: StepPlan) -> dict[str, Any]:
    found: dict[str, Any] = dict.fromkeys((
        "flops_per_image", "bytes_per_image", "all_reduces", "collectives", "peak_memory_bytes", "temporary_bytes",
        "seconds", "bound", "images_per_second_bound",
    ))  # fmt: skip
    if isinstance(step.outcome, Program):
        found |= {
            "flops_per_image": step.flops_per_image,
            "bytes_per_image": step.bytes_per_image,
            "all_reduces": step.program.all_reduces,
            "collectives": {k: {"count": c.count, "bytes": c.nbytes} for k, c in step.program.collectives.items()},
            "peak_memory_bytes": step.peak,
            "temporary_bytes": step.program.temporaries,
            "seconds": step.seconds,
            "bound": step.bound,
            "images_per_second_bound": step.images_per_second,
        }
    return {"batch_size": step.batch_size, "fits": step.fits, "refusal": step.refusal, **found}
