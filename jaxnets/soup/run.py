"""A soup from start to end: the checkpoints are judged, averaged, judged again, and what is best is written."""

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxnets import terminal
from jaxnets.cache import use_compilation_cache
from jaxnets.config import Config
from jaxnets.data.dataset import Dataset, open_dataset
from jaxnets.data.fingerprint import changes
from jaxnets.data.pipeline import train_stream
from jaxnets.errors import UserError
from jaxnets.metrics import table
from jaxnets.metrics.metric import figures_of
from jaxnets.metrics.thresholds import choose_thresholds
from jaxnets.models.family import Variables
from jaxnets.run.checkpoints import Progress
from jaxnets.run.checkpoints import steps as saved_steps
from jaxnets.run.directory import ModelCard, RunDirectory, write_json
from jaxnets.run.storage import open_place
from jaxnets.soup.ingredients import gather
from jaxnets.soup.recipe import RECIPES, Recipe, choose, mean
from jaxnets.soup.statistics import make_statistics, with_statistics
from jaxnets.train.build import Built, build, steps_of
from jaxnets.train.evaluation import evaluate_split, jit_eval_step
from jaxnets.train.judge import Judge, make_judge
from jaxnets.train.log import RunLog
from jaxnets.train.mesh import make_mesh, put, replicated, round_up, shard_rows
from jaxnets.train.phases import Phases
from jaxnets.train.saver import Checkpointer
from jaxnets.train.step import TrainState


def soup(
    runs: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    out: str | os.PathLike[str],
    *,
    recipe: Recipe = "greedy",
    checkpoints: str | None = None,
    weights: str = "ema",
    batches: int = 64,
    source: str | None = None,
    quiet: bool = True,
) -> dict[str, Any]:
    """Averages the weights of checkpoints (Wortsman et al. 2022) into a run directory, as `python -m jaxnets.soup`.

    Whatever is decided, is by the validation split; the test split is not looked at. Statistics of averaged weights are
    taken anew, of training images. Where no average is better than the best checkpoint alone, that one is written.

    Args:
        runs: one run directory, or several of one architecture that were trained on the same data.
        out: the run directory to write.
        recipe: "greedy" adds one after the other from the best on, as far as validation does not lose; "uniform" takes
            all.
        checkpoints: "all", "best", "newest" or a step of each; None for all that one run keeps, or the best of several.
        weights: "ema" for each run's averaged weights where it keeps them, or "raw".
        batches: of training images that the statistics are taken of, an epoch at most.
        source: where the data lies now, as config.data.source.

    Returns:
        What soup.json in `out` holds: each ingredient with its figures and whether it was used, and the result's.

    Raises:
        UserError: if the checkpoints do not go together, or there is no validation split.
    """
    if recipe not in RECIPES:
        raise UserError(f"the recipe must be one of {', '.join(RECIPES)}, found {recipe!r}")
    use_compilation_cache()
    paths = [str(path) for path in ([runs] if isinstance(runs, str | os.PathLike) else runs)]
    target = RunDirectory(open_place(out))
    _check_target(target)
    card, ingredients = gather(paths, checkpoints)
    workspace = Workspace.open(ingredients[0].run.read_config(), card, batches, source)
    target.create()
    console = terminal.console(quiet=quiet)
    for number, ingredient in enumerate(ingredients, 1):
        workspace.add(ingredient.read(weights))
        console.print(f"{number}: {ingredient}: {workspace.shown(workspace.singles[-1])}", soft_wrap=True)

    def mixed(numbers: Sequence[int]) -> Candidate:
        candidate = workspace.average([ingredients[number].read(weights) for number in numbers])
        names = " + ".join(str(number + 1) for number in numbers)
        console.print(f"average of {names}: {workspace.shown(candidate)}", soft_wrap=True)
        return candidate

    chosen = choose(workspace.singles, mixed, workspace.score, recipe)
    found = chosen.judged
    gained = len(chosen.used) > 1
    report = {
        "recipe": recipe,
        "weights": weights,
        "batches": workspace.batches,
        "gained": gained,
        "validation": found.figures,
        "ingredients": [
            {"run": str(one.run.path), "step": one.step, "used": number in chosen.used, "validation": candidate.figures}
            for number, (one, candidate) in enumerate(zip(ingredients, workspace.singles, strict=True))
        ],
    }
    workspace.write(target, found, max(ingredients[number].step for number in chosen.used))
    write_json(target.path / "soup.json", report)
    which = [ingredients[number] for number in chosen.used]
    if gained:
        text = f"{target.path} holds the average of {len(which)} of {len(ingredients)} checkpoints"
    else:
        text = f"no average was better: {target.path} holds the best checkpoint alone, {which[0]}"
    console.print(f"{text}: {workspace.shown(found)}", soft_wrap=True)
    return report


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """Weights, and what the validation split says of them."""

    variables: Variables
    sums: Mapping[str, np.ndarray]
    figures: dict[str, Any]


class Workspace:
    """What the ingredients share: data, network, and how they are judged."""

    def __init__(
        self, config: Config, card: ModelCard, data: Dataset, built: Built, judge: Judge, batches: int
    ) -> None:
        self.config, self.card, self.data, self.built, self.judge = config, card, data, built, judge
        self.singles: list[Candidate] = []
        devices = jax.devices()
        # A micro-batch at a time, which is what the run had memory for.
        self._size = config.batch_size // config.accumulate_steps
        self._mesh = make_mesh(devices if self._size % len(devices) == 0 else devices[:1])
        self.batches = min(batches, math.ceil(len(data.training) / self._size))
        frozen = built.freezing.at(steps_of(config, data)) if built.freezing else None
        statistics = make_statistics(built.model, data.preprocess, built.recipe, seed=config.seed, frozen=frozen)
        self._statistics = jax.jit(statistics, out_shardings=replicated(self._mesh))
        self._evaluate = jit_eval_step(built.eval_step, self._mesh)

    @classmethod
    def open(cls, config: Config, card: ModelCard, batches: int, source: str | None) -> "Workspace":
        """Opens the data of a run.

        Raises:
            UserError: if it cannot be read, is not what it was, or has no validation split.
        """
        jax.config.update("jax_enable_x64", config.dtype == "float64")
        jax.config.update("jax_default_matmul_precision", config.matmul_precision)
        if source is not None:
            config = replace(config, data=replace(config.data, source=source))
        data = open_dataset(config, card.preprocess)
        differing = changes(card.data, data.fingerprint())
        if differing or data.class_names != card.class_names:
            raise UserError(
                f"{config.data.source} is no longer the data of these runs "
                f"({'; '.join(differing) or 'it has other classes'}): put it back, or say with --source where it lies"
            )
        if "validation" not in data.splits:
            raise UserError(
                f"a soup is judged on a validation split, since one that was chosen by the test split would look too "
                f"good, and {config.data.source} has none: train with --config.data.validation=0.1"
            )
        if config.data.cut == "host":
            data = data.with_host_cut()
        judge = make_judge(replace(config, patience=None), data)
        return cls(config, card, data, build(config, data, card.fields), judge, batches)

    def add(self, variables: Variables) -> None:
        """Judges one checkpoint by itself, with its own statistics."""
        self.singles.append(self._judged(variables))

    def average(self, ingredients: Sequence[Variables]) -> Candidate:
        """Judges the average of several, with statistics of its own."""
        batches = train_stream(
            self.data.training,
            order=self.data.order,
            batch_size=self._size,
            start_step=0,
            stop_step=self.batches,
            threads=self.data.threads,
            boxes=self.built.boxes,
        )
        on_devices = (shard_rows(batch, self._size, self._mesh) for batch in batches)
        averaged = self._placed(mean(ingredients))
        return self._judged(with_statistics(averaged, self._statistics, on_devices))

    def score(self, candidate: Candidate) -> tuple[float, float]:
        return table.score(candidate.figures, self.judge.figure)

    def shown(self, candidate: Candidate) -> str:
        figures = {name: candidate.figures[name] for name in self.judge.compared(candidate.figures)}
        said = (f"{name} {value:.4f}" if name == "loss" else f"{name} {value:.2%}" for name, value in figures.items())
        return f"validation {', '.join(said)}"

    def write(self, run: RunDirectory, candidate: Candidate, step: int) -> None:
        """Writes a run directory with these weights as the checkpoint of a step."""
        evaluation = {"split": "validation", **candidate.figures}
        progress = self.judge.judged(Progress(step=step, evaluation=evaluation), step, evaluation)
        card = self.card.unfitted()  # what was fitted was fitted to one of the ingredients
        if self.data.several_labels:
            thresholds = choose_thresholds(candidate.sums)
            progress = replace(progress, best={**(progress.best or {}), "thresholds": thresholds})
            card = replace(card, thresholds=thresholds)
        run.write(self.config, card)
        log = RunLog(run, 0)
        epoch = step * self.config.batch_size / len(self.data.training)
        log.write(step, epoch, {f"eval/{name}": value for name, value in evaluation.items()})
        log.close()
        saver = Checkpointer(run.checkpoints)
        saver.save(self._state(candidate.variables, step), progress)
        saver.close()

    def _state(self, variables: Variables, step: int) -> TrainState:
        """Returns a state with these weights and a fresh optimizer, from which a training could go on."""
        phases = Phases(self.built.phases, self._mesh, split=False)
        fresh = jax.jit(phases.before(step).fresh_state, out_shardings=replicated(self._mesh))()
        placed = self._placed(variables)
        return replace(
            fresh,
            step=fresh.step + step,
            params=placed["params"],
            batch_stats=placed.get("batch_stats", {}),
            ema=None if fresh.ema is None else placed,
        )

    def _judged(self, variables: Variables) -> Candidate:
        size = round_up(self.config.eval_batch_size or self.config.batch_size, self._mesh)
        sums = evaluate_split(
            self._evaluate,
            self._placed(variables),
            self.data.splits["validation"],
            batch_size=size,
            mesh=self._mesh,
            threads=self.data.threads,
        )
        assert sums is not None  # nothing stops it
        host = jax.tree.map(np.asarray, variables)
        return Candidate(variables=host, sums=sums, figures=figures_of(table.EVALUATION, sums))

    def _placed(self, variables: Variables) -> Variables:
        return jax.tree.map(lambda x: put(np.asarray(x), replicated(self._mesh)), variables)


def _check_target(run: RunDirectory) -> None:
    """Refuses a directory that holds something already, or cannot be written to."""
    run.check_writable()
    holds = any(run.path.iterdir()) if isinstance(run.path, Path) and run.path.is_dir() else run.is_run()
    if holds or saved_steps(run.checkpoints):
        raise UserError(f"{run.path} is not empty: give another --out, so that nothing in it is lost")
