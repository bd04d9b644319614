"""Compression from start to end: the config, the cut where there is one, the training, and what came of it."""

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from jaxnets.cache import use_compilation_cache
from jaxnets.compress.derive import SHARES, derived
from jaxnets.config import Config, with_changes
from jaxnets.data.absolute import with_absolute_paths
from jaxnets.errors import UserError
from jaxnets.models.quantised.network import QUANTISED
from jaxnets.models.registry import create_model, family_of
from jaxnets.recipe.compress import METHODS
from jaxnets.recipe.prune import make_pruning
from jaxnets.run.checkpoints import choose, read_progress, read_variables, steps
from jaxnets.run.directory import RunDirectory, open_run
from jaxnets.run.storage import Place, open_place
from jaxnets.train.display import Display

_KEEP = 0.5


@dataclass(frozen=True)
class Compressed:
    """A run with a smaller network, that `jaxnets.compress` made or found finished."""

    workdir: Place
    status: int  # for the shell: 0 where it is finished, else why it stopped
    compressed: Mapping[str, Any] | None  # as model.json says it
    before: Mapping[str, Any]  # figures of the run that was started from, on its validation split
    after: Mapping[str, Any]  # of the smaller network, likewise

    @property
    def finished(self) -> bool:
        return self.status == 0


def compress(
    workdir: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    method: str,
    keep: float | None = None,
    config: Mapping[str, Any] | None = None,
    quiet: bool = True,
) -> Compressed:
    """Makes a run's network smaller and trains it on, or goes on with that, as `python -m jaxnets.compress`.

        jaxnets.compress("runs/a", "runs/a-half", method="channels", keep=0.5, config={"epochs": 10.0})

    Args:
        workdir: the run whose best weights are started from; it stays as it is.
        out: the run directory to make, or to go on with.
        method: "magnitude" makes single weights zero while it trains; "channels" cuts whole channels first; "qat" has
            it compute as in 8 bits.
        keep: share that stays, of the weights or (channels) of the multiply-adds; one half by default.
        config: keys to change by their full names, on top of the run's own config at a share of the epochs and rate.
        quiet: shows nothing.

    Raises:
        UserError: for whatever the user can correct; what was saved before stays.
    """
    if method not in METHODS:
        raise UserError(f"the method must be one of {', '.join(METHODS)}, found {method!r}")
    if keep is not None and method == "qat":
        raise UserError("--keep is a share of weights or channels, and qat keeps them all: leave it out")
    if keep is not None and not 0 < keep <= 1:
        raise UserError(f"--keep must be a share above 0 and at most 1, found {keep:g}")
    source, target = RunDirectory(open_place(workdir)), RunDirectory(open_place(out))
    if _absolute(source.path) == _absolute(target.path):
        raise UserError(f"--out {out} is the run that is to be made smaller: give another directory, so that both stay")
    changes = dict(config or {})
    if others := [key for key in ("compress.method", "compress.keep", "model.pretrained") if key in changes]:
        raise UserError(f"config.{others[0]} is said by --method, --keep and --workdir here: leave it out")
    display = Display(quiet=quiet)
    use_compilation_cache()
    if target.is_run() and steps(target.checkpoints):
        resolved = _going_on(source, target, method, keep, changes)
    else:
        resolved = _anew(source, target, method, keep, changes)
        display.say(
            f"{source.path}'s own config, with {SHARES[method].epochs:g} of its epochs and {SHARES[method].rate:g} of "
            f"its rate where nothing else is given: {_length(resolved)} at a rate of "
            f"{resolved.optimizer.peak(resolved.batch_size):g}"
        )
        if method == "channels":
            from jaxnets.compress.cut import cut

            cut(resolved, target, display)
        elif method == "qat":
            from jaxnets.compress.quantise import quantise

            quantise(resolved, target, display)
    from jaxnets.train.loop import train

    outcome = train(resolved, target.path, display)
    if not outcome.finished:
        display.say(f"stopped and saved at step {outcome.step}; run the same command again to go on")
        return Compressed(target.path, outcome.status, target.read_model().compressed, {}, {})
    return _finished(source, target, resolved, display)


def _absolute(place: Place) -> str:
    return str(place.resolve()) if isinstance(place, Path) else str(place)


def _length(config: Config) -> str:
    return f"{config.steps} steps" if config.steps else f"{config.epochs:g} epochs"


def _going_on(
    source: RunDirectory, target: RunDirectory, method: str, keep: float | None, changes: dict[str, Any]
) -> Config:
    """Returns the config of a run that is there, as far as it may change; what it came from need not be there.

    Raises:
        UserError: if it came of something else.
    """
    found = target.read_config()
    if (spec := found.compress).method != method or keep not in (None, spec.keep):
        said = f"it has config.compress.method {spec.method}" + (f" and keep {spec.keep:g}" if spec.method else "")
        raise UserError(f"{target.path} holds another run ({said}): give another --out")
    if found.model.pretrained != _absolute(source.path):
        raise UserError(
            f"{target.path} was made of {found.model.pretrained}, not of {source.path}: give that as --workdir, or "
            f"another --out"
        )
    return with_absolute_paths(with_changes(asdict(found), changes))


def _anew(
    source: RunDirectory, target: RunDirectory, method: str, keep: float | None, changes: dict[str, Any]
) -> Config:
    """Returns the config of a run that starts from another's best weights.

    Raises:
        UserError: if there is none to start from, it cannot be pruned so, or there is something else at the target.
    """
    run = open_run(source.path)
    card, step = run.read_model(), choose(run.checkpoints, "best")
    _clear(target)
    theirs = run.read_config()
    own = {**changes, "compress.method": method}
    if method != "qat":
        own["compress.keep"] = _KEEP if keep is None else keep
    config = with_absolute_paths(derived(theirs, _absolute(source.path), SHARES[method], own))
    if card.fields.get(QUANTISED):
        raise UserError(
            f"{source.path} computes in 8 bits already: "
            + (
                "train it on with python -m jaxnets.main"
                if method == "qat"
                else f"prune the run that it came from ({theirs.model.pretrained}) first, and take what comes of that "
                f"to 8 bits"
            )
        )
    if method != "magnitude" and theirs.compress.method == "magnitude":
        raise UserError(
            f"{source.path} was pruned by magnitude, and its zeros would fill again: "
            + (
                f"cut the channels of the run that it came from ({theirs.model.pretrained}) first, and prune what "
                f"comes of that by magnitude"
                if method == "channels"
                else f"quantise it after training (python -m jaxnets.export --model {source.path} --format onnx --int8)"
            )
        )
    if method == "channels":
        from jaxnets.compress.cut import check_family

        check_family(card.name)
        return config
    if method == "qat":
        from jaxnets.compress.quantise import check_quantisable

        check_quantisable(card.name, config.dtype)
        return config
    model = create_model(card.name, **card.fields)
    pruning = make_pruning(config.compress, family_of(model).structure(model), 1)
    assert pruning is not None
    zeros, total = pruning.zeros(read_variables(run.checkpoints, step, "ema")["params"])
    if zeros > (1 - config.compress.keep) * total:
        raise UserError(
            f"{source.path} has {1 - zeros / total:.1%} of its weights left, and --keep {config.compress.keep:g} would "
            f"leave more: what is zero stays so. Give less than {1 - zeros / total:.3g}"
        )
    return config


def _clear(target: RunDirectory) -> None:
    """Refuses a directory that holds something, and takes away what a cut that was broken off left."""
    target.check_writable()
    if target.is_run() and not steps(target.checkpoints):
        target.model.unlink()
        target.config.unlink()
        target.metrics.unlink(missing_ok=True)
    ours = {"checkpoints", "tensorboard", ".lock"}
    if isinstance(target.path, Path) and target.path.is_dir():
        held = [entry.name for entry in target.path.iterdir() if entry.name not in ours]
        if held or steps(target.checkpoints):
            raise UserError(f"{target.path} is not empty: give another --out, so that nothing in it is lost")


def _finished(source: RunDirectory, target: RunDirectory, config: Config, display: Display) -> Compressed:
    """Notes in model.json what was reached, and says what it cost."""
    card = target.read_model()
    step = choose(target.checkpoints, "best")
    if config.compress.method == "magnitude":
        model = create_model(card.name, **card.fields)
        pruning = make_pruning(config.compress, family_of(model).structure(model), 1)
        assert pruning is not None
        params = read_variables(target.checkpoints, step, "ema")["params"]
        zeros, total = pruning.zeros(params)
        every = sum(int(np.size(x)) for x in _leaves(params))
        card = replace(
            card,
            compressed={
                "method": "magnitude",
                "keep": config.compress.keep,
                "run": config.model.pretrained,
                "parameters": {"before": every, "after": every - zeros},
                "sparsity": zeros / total,
            },
        )
        target.write_model(card)
        display.say(
            f"magnitude: {zeros / total:.2%} of the {total:,} weights that are pruned are zero, {zeros / every:.2%} of "
            f"all {every:,} parameters"
        )
    before, after = _best(source), _best(target)
    for name in before.keys() & after.keys() - {"step", "thresholds"}:
        if name != "loss":
            display.say(f"validation {name.replace('_', ' ')}: {before[name]:.2%} before, {after[name]:.2%} after")
    return Compressed(target.path, 0, card.compressed, before, after)


def _best(run: RunDirectory) -> dict[str, Any]:
    """Returns the figures of a run's best checkpoint, as far as they were noted and can still be read."""
    try:
        return dict(read_progress(run.checkpoints, steps(run.checkpoints)[-1]).best or {})
    except (UserError, IndexError):
        return {}


def _leaves(tree: Any) -> list[Any]:
    import jax

    return jax.tree.leaves(tree)
