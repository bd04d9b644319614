"""What the command line says of models that take over."""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jaxnets.errors import UserError, nearest
from jaxnets.serve.limits import NAME, Keys, read_keys
from jaxnets.serve.rollout.state import Bounds

if TYPE_CHECKING:
    from jaxnets.serve.source import Source, Split


@dataclass(frozen=True, kw_only=True)
class Pair:
    """A name, the model that answers it, and one that may take over."""

    name: str
    stable: str
    candidate: str

    @classmethod
    def shadow(cls, text: str) -> "Pair":
        """Reads `NAME=CANDIDATE`, of which NAME is a model that is served."""
        name, _, candidate = text.partition("=")
        if not (NAME.fullmatch(name) and NAME.fullmatch(candidate)):
            raise UserError(
                f"--shadow must be NAME=CANDIDATE, two names of models that are served, found {text!r}: give the "
                "candidate with --model CANDIDATE=… too"
            )
        if name == candidate:
            raise UserError(f"--shadow {text}: a model cannot be its own shadow: name another one")
        return cls(name=name, stable=name, candidate=candidate)

    @classmethod
    def canary(cls, text: str) -> "Pair":
        """Reads `NAME=A,B`."""
        name, _, items = text.partition("=")
        models = items.split(",")
        if not NAME.fullmatch(name) or len(models) != 2 or not all(map(NAME.fullmatch, models)):
            raise UserError(
                f"--canary must be NAME=A,B, with the old model A and the candidate B, found {text!r}: the share of B "
                "is said by --canary-steps"
            )
        if models[0] == models[1]:
            raise UserError(f"--canary {text}: {models[0]} cannot take over from itself: name two models")
        return cls(name=name, stable=models[0], candidate=models[1])


@dataclass(frozen=True, kw_only=True)
class Options:
    """What may take over, how, and who may say so."""

    shadows: Sequence[Pair] = ()
    canaries: Sequence[Pair] = ()
    bounds: Bounds = field(default_factory=Bounds)
    state: Path | None = None  # folder that states are kept in
    candidates: Path | None = None  # folder whose runs may be brought in while it serves
    spare: float = 0.1  # of the cores' time, that copies may take

    def __post_init__(self) -> None:
        if not 0 < self.spare <= 1:
            raise UserError(f"--shadow-time must be a share above 0 and up to 1, found {self.spare:g}")
        if self.candidates is not None and not self.candidates.is_dir():
            raise UserError(f"--candidates {self.candidates} is no folder: give the one that runs are trained into")

    def check(self, sources: "Sequence[Source]", splits: "Sequence[Split]") -> None:
        """Refuses names that are not served, or are given twice.

        Raises:
            UserError: if there are some.
        """
        models, split = [source.name for source in sources], [split.name for split in splits]
        seen: set[str] = set()
        for option, pairs in (("--shadow", self.shadows), ("--canary", self.canaries)):
            for pair in pairs:
                given = f"{option} {pair.name}"
                for name in (pair.stable, pair.candidate):
                    if name not in models:
                        raise UserError(
                            f"{given} names {name!r}, which is not served{nearest(name, models)}: give it with "
                            f"--model {name}=…"
                        )
                if pair.name in split:
                    raise UserError(f"{given}: the name is one of --split already: take another, or leave one out")
                if pair.name in seen:
                    raise UserError(f"{given}: the name has a candidate already: one at a time")
                if pair.name in models and pair.name != pair.stable:
                    raise UserError(
                        f"{given}: the name is that of a model, which is not the old one ({pair.stable}): take another"
                    )
                seen.add(pair.name)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options of models that take over."""
    default = Bounds()
    group = parser.add_argument_group("rollout", "of a new model, beside the old one, by and by, or at once")
    group.add_argument(
        "--shadow", action="append", default=[], metavar="NAME=CANDIDATE", dest="shadows",
        help="another of the models is asked what NAME was asked, in what time is left over; nobody waits for it",
    )  # fmt: skip
    group.add_argument(
        "--canary", action="append", default=[], metavar="NAME=A,B", dest="canaries",
        help="a name that model A answers, and B a share that grows as long as it stays within bounds",
    )  # fmt: skip
    group.add_argument(
        "--canary-steps", metavar="PERCENT,…", help="of the requests, for B (default 1,5,25,50,100: then B is promoted)"
    )
    group.add_argument(
        "--canary-window", type=float, metavar="SECONDS", help=f"of a step, at least (default {default.window:g})"
    )
    group.add_argument(
        "--canary-requests", type=int, metavar="N",
        help=f"that B must have had in a step, and as many comparisons (default {default.requests})",
    )  # fmt: skip
    group.add_argument(
        "--canary-errors", type=float, metavar="SHARE",
        help=f"of its requests that B may fail at, beyond A's (default {default.errors:g})",
    )  # fmt: skip
    group.add_argument(
        "--canary-latency", type=float, metavar="TIMES",
        help=f"A's mean latency that B may take (default {default.latency:g})",
    )  # fmt: skip
    group.add_argument(
        "--canary-disagreement", type=float, metavar="SHARE",
        help=f"of the comparisons in which B may say something else (default {default.disagreement:g})",
    )  # fmt: skip
    group.add_argument(
        "--canary-compare", type=float, metavar="SHARE",
        help=f"of the requests that both answer, in what time is left over (default {default.compare:g})",
    )  # fmt: skip
    group.add_argument(
        "--shadow-time", type=float, default=Options.spare, metavar="SHARE",
        help=f"of the cores' time that shadows and comparisons may take (default {Options.spare:g})",
    )  # fmt: skip
    group.add_argument(
        "--state", type=Path, metavar="DIR",
        help="keep there how far models have taken over, through restarts and for several processes (default: nowhere)",
    )  # fmt: skip
    group.add_argument(
        "--admin-key-file", type=Path,
        help="keys that open …/promote, …/rollback and …/canary, one a line (default: these are closed)",
    )  # fmt: skip
    group.add_argument(
        "--candidates", type=Path, metavar="DIR",
        help="runs below it may be brought in as candidates while it serves (default: none)",
    )  # fmt: skip


def read_options(given: argparse.Namespace, keys: Keys) -> tuple[Options, Keys]:
    """Returns what was given, and the keys that open what changes it; `keys` are those of everybody.

    Raises:
        UserError: if something is not as its option says, or a key is of both kinds.
    """
    bounds: dict[str, Any] = {
        name: value
        for name in Bounds.__dataclass_fields__
        if name != "steps" and (value := getattr(given, f"canary_{name}")) is not None
    }
    if given.canary_steps is not None:
        bounds["steps"] = _steps(given.canary_steps)
    options = Options(
        shadows=[Pair.shadow(text) for text in given.shadows],
        canaries=[Pair.canary(text) for text in given.canaries],
        bounds=Bounds(**bounds),
        state=given.state,
        candidates=given.candidates,
        spare=given.shadow_time,
    )
    if given.admin_key_file is None:
        return options, Keys()
    admin = read_keys(given.admin_key_file, "--admin-key-file")
    if admin.shares_one(keys):
        raise UserError(
            f"a key in {given.admin_key_file} is one of --api-key-file too: those who may ask could promote: make "
            "another"
        )
    return options, admin


def _steps(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(part.strip().removesuffix("%")) / 100 for part in text.split(","))
    except ValueError:
        raise UserError(f"--canary-steps must be percentages like 1,5,25,50,100, found {text!r}") from None
