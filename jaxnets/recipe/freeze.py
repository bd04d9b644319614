"""What does not train, and from which step on it does."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, Literal

from flax.traverse_util import flatten_dict, unflatten_dict

from jaxnets.errors import UserError, nearest
from jaxnets.models.family import Path, Structure, Variables
from jaxnets.models.mode import Train, TrainingBut
from jaxnets.schema import Positive

Policy = Literal["frozen", "statistics", "train"]


@dataclass(frozen=True, kw_only=True)
class FreezeConfig:
    before: str | None = None  # stage4: all layers before that stage do not train; head: all but the head; or a layer
    layers: tuple[str, ...] = ()  # further stages or layers that do not train, or patterns: stem, stage[12], stage3_*1
    thaw_epoch: Positive | None = None  # epochs after which all of them train; None: they never do
    stage_epochs: Positive | None = None  # epochs between one stage that thaws and the next, from the head back
    # Of batch normalisation in what is frozen. frozen: all stays, and the running statistics are used, as in
    # evaluation; statistics: scale and bias stay, the batch's statistics are used and followed; train: all trains, and
    # layer normalisation and LayerScale too, which frozen and statistics leave as they are.
    batch_norm: Policy = "frozen"

    @property
    def freezes(self) -> bool:
        """Tells whether anything is frozen at the start."""
        return self.before is not None or bool(self.layers)


@dataclass(frozen=True, kw_only=True)
class Frozen:
    """What does not train for some time: `layers` under `params`, with what becomes of their batch normalisation."""

    layers: frozenset[str]
    batch_norm: Policy = "frozen"

    @property
    def mode(self) -> Train:
        """How the network computes its training step."""
        return TrainingBut(self.layers) if self.batch_norm == "frozen" else True

    def keeps(self, path: Path, flat: Mapping[Path, Any]) -> bool:
        """Tells whether an array of a network stays as it is; `flat` are all, by collection, layer and so on."""
        collection, layer = path[:2]
        if layer not in self.layers:
            return False
        if collection == "batch_stats":
            return self.batch_norm == "frozen"
        return not (self.batch_norm == "train" and of_norm(path, flat))


def of_norm(path: Path, flat: Mapping[Path, Any]) -> bool:
    """Tells whether a parameter is of a normalisation, or of LayerScale, which alone have a scale."""
    return (*path[:-1], "scale") in flat


def split(frozen: Frozen | None, variables: Variables) -> tuple[Variables, Variables]:
    """Returns the variables that training changes and those that stay; a collection that is empty is left out."""
    if frozen is None:
        return variables, {}
    flat = flatten_dict(variables)
    kept = {path: x for path, x in flat.items() if frozen.keeps(path, flat)}
    return unflatten_dict({path: x for path, x in flat.items() if path not in kept}), unflatten_dict(kept)


def join(changing: Any, kept: Any) -> Any:
    """Returns the tree that was split."""
    return unflatten_dict(flatten_dict(changing) | flatten_dict(kept)) if kept else changing


@dataclass(frozen=True, kw_only=True)
class Freezing:
    """When each layer trains that does not from the start: the step before which it is frozen; None: it always is."""

    thaws: Mapping[str, int | None]
    batch_norm: Policy = "frozen"

    @property
    def starts(self) -> tuple[int, ...]:
        """The steps at which something thaws, ascending, with 0 before them."""
        return tuple(sorted({0, *(step for step in self.thaws.values() if step is not None)}))

    def at(self, step: int) -> Frozen | None:
        """Returns what is frozen after so many steps; None where all train."""
        layers = frozenset(layer for layer, thaw in self.thaws.items() if thaw is None or thaw > step)
        return Frozen(layers=layers, batch_norm=self.batch_norm) if layers else None

    def cohorts(self, params: Any) -> dict[int, Any]:
        """Returns the parameters of those that train, by the step from which they do."""
        flat = flatten_dict(params)
        found: dict[int, dict[Path, Any]] = {}
        for path, x in flat.items():
            always = self.batch_norm == "train" and of_norm(path, flat)
            start = 0 if always else self.thaws.get(path[0], 0)
            assert start is not None, f"{path} never trains"
            found.setdefault(start, {})[path] = x
        return {start: unflatten_dict(found[start]) for start in sorted(found)}


def plan_freezing(spec: FreezeConfig, structure: Structure, steps_per_epoch: float) -> Freezing | None:
    """Returns what a spec freezes of a network, and until which step; None where it freezes nothing.

    What a network never trains is frozen under every spec.

    Raises:
        UserError: as `frozen_layers`.
    """
    layers = frozen_layers(spec, structure)
    if not layers and not structure.fixed:
        return None

    def step_of(epochs: float) -> int:
        return max(1, math.ceil(epochs * steps_per_epoch - 1e-6))  # once all of their examples were seen

    thaws: dict[str, int | None] = {}
    latest = None if spec.thaw_epoch is None else step_of(spec.thaw_epoch)
    groups = [kept for group in structure.groups(coarse=True) if (kept := [x for x in group if x in layers])]
    for number, group in enumerate(reversed(groups), 1):
        own = None if spec.stage_epochs is None else step_of(number * spec.stage_epochs)
        steps = [step for step in (own, latest) if step is not None]
        thaws |= dict.fromkeys(group, min(steps, default=None))
    thaws |= dict.fromkeys(structure.fixed)
    return Freezing(thaws=thaws, batch_norm=spec.batch_norm)


def frozen_layers(spec: FreezeConfig, structure: Structure) -> frozenset[str]:
    """Returns the layers of a network that do not train from the start.

    Raises:
        UserError: for a name or a pattern of none of its layers, and where nothing would train.
    """
    layers = [layer for group in structure.groups() for layer in group]
    stages = stages_of(structure)
    found: set[str] = set()
    if spec.before is not None:
        found |= set(_before(spec.before, layers, stages))
    for pattern in spec.layers:
        matching = {layer for layer in layers if fnmatchcase(layer, pattern)}
        matching.update(*(group for name, group in stages.items() if fnmatchcase(name, pattern)))
        if not matching:
            raise UserError(
                f"config.freeze.layers: {pattern!r} matches no stage and no layer"
                f"{nearest(pattern.strip('*?_'), [*stages, *layers])}; the stages are {', '.join(stages)}, and the "
                f"layers of {list(stages)[1]} {', '.join(list(stages.values())[1])}"
            )
        found |= matching
    if len(found) == len(layers) and spec.batch_norm != "train":
        raise UserError(
            f"config.freeze freezes all {len(layers)} layers, the head too, so that nothing would train: leave some "
            f"out; config.freeze.before=head freezes all but the head"
        )
    return frozenset(found)


def stages_of(structure: Structure) -> dict[str, tuple[str, ...]]:
    """Returns the layers of the stem, each stage and the head, by the name that it is frozen by."""
    return dict(zip(("stem", *structure.stages, "head"), structure.groups(coarse=True), strict=True))


def _before(name: str, layers: list[str], stages: Mapping[str, tuple[str, ...]]) -> list[str]:
    """Returns the layers before the one, or the stage, of that name."""
    first = stages[name][0] if name in stages else name
    if first not in layers:
        raise UserError(
            f"config.freeze.before must be a stage or a layer, before which all is frozen ({', '.join(stages)}), found "
            f"{name!r}{nearest(name, [*stages, *layers])}"
        )
    before = layers[: layers.index(first)]
    if not before:
        raise UserError(f"config.freeze.before {name!r} freezes nothing, as no layer lies before it: leave it out")
    return before


def summary(freezing: Freezing, structure: Structure, params: Any, step: int, steps: int) -> str:
    """Returns in a line what trains of a network after `step` of so many steps, and what will."""
    frozen = freezing.at(step)
    changing, _ = split(frozen, {"params": params})
    numbers = [sum(x.size for x in flatten_dict(tree).values()) for tree in (changing["params"], params)]
    groups = stages_of(structure)
    kept = frozen.layers if frozen else frozenset()
    trained = [
        name if not kept.intersection(group) else f"{len(left)} of {len(group)} layers of {name}"
        for name, group in groups.items()
        if (left := set(group) - kept)
    ]
    text = f"{', '.join(trained) or 'BatchNorm alone'}: {numbers[0]:,} of {numbers[1]:,} parameters"
    if frozen is None:
        return text
    text += f"; the rest is frozen, {_BATCH_NORM[freezing.batch_norm]}"
    later = sorted({start for start in freezing.starts if start > step})
    for start in later:
        thawing = [name for name, group in groups.items() if any(freezing.thaws.get(x, 0) == start for x in group)]
        all_of_it = start == freezing.starts[-1] and freezing.at(start) is None
        who = "all train" if all_of_it else f"{', '.join(thawing)} {'trains' if len(thawing) == 1 else 'train'}"
        text += f"; {who} from step {start:,}" + (", after the end" if start >= steps else "")
    return text


_BATCH_NORM: Mapping[Policy, str] = {
    "frozen": "its BatchNorm too",
    "statistics": "while its BatchNorm follows the batches' statistics",
    "train": "but for its BatchNorm",
}
