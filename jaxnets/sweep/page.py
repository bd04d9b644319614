"""A sweep as one page that needs nothing else: its trials, what they have in common, and which key matters."""

import math
import warnings
from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING, Any

from jaxnets import figures
from jaxnets.config import Config
from jaxnets.evaluate.page.document import document
from jaxnets.evaluate.page.section import Section, drawing, paragraph, table, tile, tiles
from jaxnets.schema import flatten, written
from jaxnets.sweep.space import Choices, Range
from jaxnets.sweep.study import SharedStudy, shown, state, value_of, values_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from optuna.trial import FrozenTrial

_FEWEST = 4  # finished trials, below which no importance is told


def page(config: Config, study: SharedStudy, ranked: "Sequence[FrozenTrial]") -> str:
    """Returns the page; the trials are those that are over, the best first."""
    figure = study.figure.replace("_", " ")
    sections = [
        Section("Trials", _trials(study, ranked), "trials"),
        Section("Course", _course(study, ranked), "course"),
        Section("Parallel coordinates", _parallel(study, ranked), "parallel"),
        Section("Importance", _importance(study, ranked), "importance"),
        Section("Config", _config(config, study), "config"),
    ]
    best, over = study.best(), [state(trial) for trial in ranked]
    cells = [tile(str(len(ranked)), "trials", f"{over.count('pruned')} left early, {over.count('refused')} not run")]
    if best is not None:
        cells.insert(0, tile(shown(study.figure, best.value), f"validation {figure}", f"trial {best.number}, the best"))
    said = "Chosen by the validation split among so many, the best figure is somewhat too good: the test split tells."
    return document(f"Sweep {study.folder.name}", tiles(cells) + paragraph(said, "dim"), sections)


def _trials(study: SharedStudy, ranked: "Sequence[FrozenTrial]") -> str:
    names = [key.rpartition(".")[2] for key in study.space]
    names = names if len(set(names)) == len(names) else list(study.space)
    head = ["trial", study.figure.replace("_", " "), "evaluations", *names, "ended"]
    rows = []
    for trial in ranked:
        values = values_of(study.space, trial.params)
        cells = [_brief(values[key]) if key in values else "" for key in study.space]
        ended = trial.user_attrs.get("error") or {"pruned": "left early", "complete": ""}.get(
            state(trial), state(trial)
        )
        figure = shown(study.figure, value_of(trial))
        rows.append([str(trial.number), figure, str(len(trial.intermediate_values)), *cells, ended])
    return table(head, rows, numbers=range(1, len(head) - 1), scroll=True)


def _course(study: SharedStudy, ranked: "Sequence[FrozenTrial]") -> str:
    trials = sorted((trial for trial in ranked if value_of(trial) is not None), key=lambda trial: trial.number)
    if len(trials) < 2:
        return ""
    from matplotlib.ticker import MaxNLocator

    better = min if study.figure == "loss" else max
    drawn = figures.new_figure(1.6 * figures.WIDTH, figures.HEIGHT)
    with figures.style():
        axes = drawn.add_subplot()
        for kind, mark, colour in (("complete", "o", figures.BLUE), ("pruned", "x", figures.GREY)):
            some = [trial for trial in trials if state(trial) == kind]
            if some:
                label = "left early" if kind == "pruned" else "finished"
                numbers = [trial.number for trial in some]
                axes.plot(numbers, [value_of(trial) or 0.0 for trial in some], mark, color=colour, label=label)
        finished = [trial for trial in trials if state(trial) == "complete"]
        so_far: list[float] = []
        for trial in finished:
            value = trial.value or 0.0
            so_far.append(better(so_far[-1], value) if so_far else value)
        axes.step([trial.number for trial in finished], so_far, where="post", color=figures.ORANGE, label="best so far")
        axes.set_xlabel("trial")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_ylabel(study.figure.replace("_", " "))
        axes.legend()
    return drawing(drawn, f"The {study.figure} of each trial, and the best so far.")


def _parallel(study: SharedStudy, ranked: "Sequence[FrozenTrial]") -> str:
    trials = [trial for trial in ranked if value_of(trial) is not None and len(trial.params) == len(study.space)]
    if len(trials) < 2:
        return ""
    drawn = _lines(study, trials)
    caption = (
        "Each line is a trial, from its values to its figure: the better, the lighter. Dotted ones were left early, "
        "and the thick one is the best."
    )
    return drawing(drawn, "Lines that lead from each trial's values to its figure.", caption, wide=True)


def _lines(study: SharedStudy, trials: "Sequence[FrozenTrial]") -> "Figure":
    import matplotlib

    keys = list(study.space)
    values = [value_of(trial) or 0.0 for trial in trials]
    low, high = min(values), max(values)
    best = study.best()

    def height(value: float) -> float:
        return 0.5 if high == low else (value - low) / (high - low)

    drawn = figures.new_figure(max(1.5 * (len(keys) + 1), 1.6 * figures.WIDTH), 1.25 * figures.HEIGHT)
    colours = matplotlib.colormaps[figures.SEQUENTIAL]
    with figures.style():
        axes = drawn.add_subplot()
        for trial, value in sorted(zip(trials, values, strict=True), key=lambda pair: pair[1]):
            points = [_height(study.space[key], trial.params[key]) for key in keys]
            good = 1 - height(value) if study.figure == "loss" else height(value)
            is_best = best is not None and trial.number == best.number
            axes.plot(
                range(len(keys) + 1),
                [*points, height(value)],
                ":" if state(trial) == "pruned" else "-",
                color=figures.RED if is_best else colours(good),
                linewidth=2.6 if is_best else 1.1,
                zorder=3 if is_best else 2,
            )
        for x, key in enumerate(keys):
            axes.axvline(x, color=figures.DIM, linewidth=0.8)
            for at, text in _marks(study.space[key]):
                axes.text(x, at, f" {text}", fontsize=8, va="center", zorder=4)
        axes.axvline(len(keys), color=figures.DIM, linewidth=0.8)
        for at, value in ((0.0, low), (1.0, high)):
            axes.text(len(keys), at, f" {shown(study.figure, value)}", fontsize=8, va="center", zorder=4)
        axes.set_xticks(range(len(keys) + 1), [*(_wrapped(key) for key in keys), study.figure.replace("_", " ")])
        axes.set_yticks([])
        axes.set_xlim(-0.1, len(keys) + 0.5)
        axes.grid(visible=False)
        axes.spines[["left", "bottom"]].set_visible(False)
    return drawn


def _height(values: Range, param: Any) -> float:
    """Returns where a parameter lies on its axis, 0 … 1."""
    if isinstance(values, Choices):
        return list(values.by_text).index(param) / (len(values.values) - 1)
    if values.log:
        return math.log(param / values.low) / math.log(values.high / values.low)
    return (param - values.low) / (values.high - values.low)


def _marks(values: Range) -> list[tuple[float, str]]:
    if isinstance(values, Choices):
        return [(_height(values, text), text) for text in values.by_text]
    return [(0.0, _brief(values.low)), (1.0, _brief(values.high))]


def _importance(study: SharedStudy, ranked: "Sequence[FrozenTrial]") -> str:
    finished = [trial for trial in ranked if state(trial) == "complete"]
    shares = _shares(study) if len(finished) >= _FEWEST and len({trial.value for trial in finished}) > 1 else {}
    if not shares:
        return paragraph(
            f"With {len(finished)} trials that were run to their end, all of one figure or too few of them, nothing "
            f"can be told of what matters."
        )
    drawn = figures.new_figure(1.6 * figures.WIDTH, 0.9 + 0.28 * len(shares))
    with figures.style():
        axes = drawn.add_subplot()
        names = list(reversed(shares))
        axes.barh(names, [shares[name] for name in names], color=figures.BLUE, height=0.6)
        axes.set_xlabel("share of importance")
        axes.set_xlim(0, 1)
        axes.grid(visible=False, axis="y")
    caption = (
        f"PED-ANOVA (Watanabe et al. 2023), of the {len(finished)} trials that were run to their end: how differently "
        f"a key's values are spread among the better ones. With few trials it is a hint."
    )
    return drawing(drawn, "How much each key matters.", caption)


def _shares(study: SharedStudy) -> dict[str, float]:
    import optuna

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = optuna.importance.get_param_importances(study.study)
    except (RuntimeError, ValueError):  # what it says of too few trials differs between evaluators
        return {}
    return {key: float(value) for key, value in found.items()}


def _config(config: Config, study: SharedStudy) -> str:
    defaults = flatten(Config())
    changed = [f"{key}={written(value)}" for key, value in flatten(config).items() if value != defaults[key]]
    listed = "".join(f"<li>{escape(key)}: {escape(str(values))}</li>" for key, values in study.space.items())
    return paragraph(f"All trials: {' '.join(changed) or 'the defaults'}.") + f"<ul>{listed}</ul>"


def _brief(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else written(value)


def _wrapped(key: str) -> str:
    return key.replace(".", ".\n")
