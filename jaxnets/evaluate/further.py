"""What else an evaluation is asked: other models, groups, corruptions, images of another kind.

What they come to: keys of metrics.json, lines for the terminal, sections of the page.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jaxnets.errors import UserError

if TYPE_CHECKING:
    import numpy as np

    from jaxnets.data.examples import Examples
    from jaxnets.evaluate.options import Options
    from jaxnets.evaluate.page.section import Section
    from jaxnets.evaluate.predictions import Predictions
    from jaxnets.evaluate.run import Evaluation
    from jaxnets.evaluate.runs_table import Runs
    from jaxnets.evaluate.views import Views

_GROUPS = 20  # lines of the terminal
# Figures that a terminal has room for; the page and metrics.json have all.
_CHIEF = ("accuracy", "macro_f1", "mean_average_precision", "log_loss", "ece")


@dataclass
class Further:
    """The answers, in the order in which they were asked."""

    metrics: dict[str, Any] = field(default_factory=dict)
    tables: list[tuple[str, tuple[str, ...], Sequence[tuple[str, ...]], list[str]]] = field(default_factory=list)
    drawn: "list[Callable[[], Section]]" = field(default_factory=list)

    def sections(self) -> "list[Section]":
        """Returns the sections of the page, drawn now."""
        return [draw() for draw in self.drawn]

    def say(self, title: str, head: tuple[str, ...], rows: Sequence[tuple[str, ...]], below: list[str]) -> None:
        self.tables.append((title, head, rows, below))

    def show(self, console: Any) -> None:
        """Prints the answers."""
        from rich.table import Table

        from jaxnets.terminal import shown

        for title, head, rows, below in self.tables:
            table = Table(title=shown(title))
            for number, name in enumerate(head):
                table.add_column(
                    shown(name),
                    overflow="fold",
                    min_width=None if number else 10,
                    justify="right" if number else "left",
                )
            for row in rows:
                table.add_row(*map(shown, row))
            console.print(table)
            for line in below:
                console.print(shown(line), soft_wrap=True)


def corrupted_images(text: str | None) -> int | None:
    """Returns how many images are corrupted, None for all.

    Raises:
        UserError: if the text is neither a number nor all.
    """
    if text is None:
        return 1000
    if text == "all":
        return None
    if not text.isdecimal() or int(text) < 1:
        raise UserError(f"--corrupt-images must be a number of images from 1 on, or all, found {text!r}")
    return int(text)


def corruption_names(given: Sequence[str] | None) -> tuple[str, ...]:
    """Returns the corruptions that are meant.

    Raises:
        UserError: if there is none of a name.
    """
    if given is None:
        return ()
    from jaxnets.errors import nearest
    from jaxnets.evaluate.corruptions import ALL, COMMON, FAMILIES

    families = {**FAMILIES, "all": ALL, "common": COMMON}
    names: list[str] = []
    for name in given or ("common",):
        plain = name.strip().lower().replace("-", "_")
        if plain not in families and plain not in ALL:
            raise UserError(
                f"--corruptions: there is no corruption {name!r}{nearest(plain, [*ALL, *families])}; there are "
                f"{', '.join(ALL)}, the families {', '.join(FAMILIES)}, and all"
            )
        names += families.get(plain, (plain,))
    return tuple(dict.fromkeys(names))


def ask_further(options: "Options", evaluation: "Evaluation") -> Further:
    """Answers what else was asked of an evaluated run, in the views and at the size that it was evaluated in.

    Raises:
        UserError: if it cannot be answered.
    """
    found = Further()
    if options.against:
        _against(options, evaluation, found)
    if options.by:
        _by(options, options.by, evaluation, found)
    if options.corruptions is not None:
        _corruptions(options, evaluation, found)
    if options.unlike:
        _unlike(options, options.unlike, evaluation, found)
    if options.table:
        tabulate(table_over(options), found)
    return found


def _against(options: "Options", evaluation: "Evaluation", found: Further) -> None:
    from jaxnets.evaluate.against import Judged, compare
    from jaxnets.evaluate.opened import open_model
    from jaxnets.evaluate.page.against import against, signed
    from jaxnets.evaluate.page.images import Images
    from jaxnets.evaluate.run import judge_run
    from jaxnets.evaluate.weighted import TITLES, shown

    def judged(of: "Evaluation", name: str) -> Judged:
        return Judged(name=name, predictions=of.predictions, temperature=of.temperature, thresholds=of.asked.thresholds)

    def other(path: str) -> Judged:
        given: dict[str, Any] = {"split": options.split, "source": options.source, "batch_size": options.batch_size}
        given |= {"class_map": options.class_map, "tta": options.tta}
        if path.endswith(".onnx"):
            return judged(judge_run(evaluation.run, model=Path(path), **given), path)
        run = open_model(path, options.source or evaluation.config.data.source, weights=options.weights)
        return judged(judge_run(run, weights=options.weights, size=options.size, **given), path)

    name = str(options.workdir if options.model is None else options.model)
    comparisons = compare(judged(evaluation, name), [other(path) for path in options.against or ()], seed=options.seed)
    found.metrics["against"] = [comparison.to_json() for comparison in comparisons]
    for comparison in comparisons:
        rows = [
            (
                TITLES[key],
                *(shown(key, interval.value) for interval in comparison.figures[key]),
                signed(key, difference.value),
                f"{signed(key, difference.low)} … {signed(key, difference.high)}",
            )
            for key, difference in comparison.differences.items()
        ]
        test = comparison.test
        below = [
            comparison.verdict,
            f"both right {test.both:,}, only the first {test.only_first:,}, only the second {test.only_second:,}, "
            f"neither {test.neither:,}; McNemar: mid-p {test.mid_p:.3g}, exact {test.exact:.3g}"
            + (
                ""
                if comparison.p == test.mid_p
                else f", adjusted for {len(comparisons)} comparisons {comparison.p:.3g}"
            ),
        ]
        head = ("", comparison.first.name, comparison.second.name, "difference", "95 % interval")
        found.say(f"{comparison.first.name} against {comparison.second.name}", head, rows, below)
    found.drawn.append(lambda: against(comparisons, Images(evaluation.predictions, evaluation.examples)))


def _by(options: "Options", column: str, evaluation: "Evaluation", found: Further) -> None:
    import numpy as np

    from jaxnets.evaluate.by_column import column_values
    from jaxnets.evaluate.groups import by_group, in_ranges
    from jaxnets.evaluate.page.groups import groups
    from jaxnets.evaluate.weighted import TITLES, shown

    data, predictions = evaluation.config.data, evaluation.predictions
    if options.source is not None:
        data = replace(data, source=options.source, root=data.root if options.source == data.source else None)
    index = np.arange(len(predictions)) if predictions.index is None else predictions.index
    values = column_values(data, evaluation.card.class_names, evaluation.examples, index, column)
    result = by_group(
        predictions,
        in_ranges(values),
        column,
        temperature=evaluation.temperature,
        thresholds=evaluation.asked.thresholds,
        seed=options.seed,
    )
    found.metrics["by_group"] = result.to_json()
    keys = [key for key in result.together if key in _CHIEF]
    rows = [
        (
            group.name + (" (small)" if group.small else ""),
            f"{group.count:,}",
            *(shown(key, group.figures[key].value) for key in keys),
        )
        for group in result.groups[:_GROUPS]
    ]
    below = [f"and {len(result.groups) - _GROUPS:,} groups more, in metrics.json"] * (len(result.groups) > _GROUPS)
    if (gap := result.gaps.get("accuracy")) is not None:
        interval = gap.difference
        below.append(
            f"accuracy is {100 * interval.value:.1f} points ({100 * interval.low:.1f} … {100 * interval.high:.1f}) "
            f"higher for {gap.best} than for {gap.worst}; by chance so with probability {gap.p:.2g}"
        )
    found.say(f"by {column}", (column, "images", *(TITLES[key] for key in keys)), rows, below)
    found.drawn.append(lambda: groups(result))


def _corruptions(options: "Options", evaluation: "Evaluation", found: Further) -> None:
    from jaxnets.cores import cores
    from jaxnets.evaluate.page.robustness import robustness
    from jaxnets.evaluate.robustness import measure

    config = evaluation.config
    result = measure(
        evaluation.asked,
        evaluation.examples,
        evaluation.predictions,
        names=corruption_names(options.corruptions),
        most=corrupted_images(options.corrupt_images),
        seed=options.seed,
        temperature=evaluation.temperature,
        views=_views(options),
        batch_size=options.batch_size or config.eval_batch_size or config.batch_size,
        threads=max(cores() if config.data.threads is None else config.data.threads, 1),
    )
    found.metrics["robustness"] = result.to_json()
    errors = result.errors
    rows = [
        (name.replace("_", " "), *(f"{x:.1%}" for x in row.tolist()), f"{row.mean():.1%}")
        for name, row in zip(result.names, errors, strict=True)
    ]
    mean, relative = result.mean_error, result.relative_error
    below = [
        f"mean corruption error {mean.value:.2%} ({mean.low:.2%} … {mean.high:.2%}), {relative.value:.2%} more than "
        f"the {result.clean_error:.2%} on the same images when clean",
        "; ".join(result.notes),
    ]
    if result.mce is not None and result.relative_mce is not None:
        below.insert(1, f"over AlexNet's errors: mCE {result.mce:.1%}, relative mCE {result.relative_mce:.1%}")
    found.say("error on corrupted images", ("severity", "1", "2", "3", "4", "5", "mean"), rows, below)
    found.drawn.append(lambda: robustness(result, evaluation.examples))


def _unlike(options: "Options", source: str, evaluation: "Evaluation", found: Further) -> None:
    from jaxnets.evaluate.other_images import open_other
    from jaxnets.evaluate.page.unlike import unlike as section
    from jaxnets.evaluate.predictions import collect
    from jaxnets.evaluate.unlike import TITLES, unlike

    config = evaluation.config
    views = _views(options)
    preprocess = evaluation.asked.preprocess
    fitted = preprocess if views is None else views.fit(preprocess)
    other, split, threads = open_other(config.data, evaluation.asked, fitted, source)
    predictions = collect(
        evaluation.asked,
        other,
        split=split,
        batch_size=options.batch_size or config.eval_batch_size or config.batch_size,
        threads=threads,
        views=views,
    )
    distances = _distances(evaluation, other, predictions, threads)
    result = unlike(
        evaluation.predictions, predictions, source, temperature=evaluation.temperature, distances=distances
    )
    found.metrics["unlike"] = result.to_json()
    rows = [
        (
            TITLES[name],
            f"{score.auroc.value:.4f}",
            f"{score.auroc.low:.4f} … {score.auroc.high:.4f}",
            f"{score.fpr95:.2%}",
        )
        for name, score in result.scores.items()
    ]
    below = [f"{result.own_count:,} of the run's images, {result.other_count:,} of {source}"]
    found.say("images of another kind", ("score", "AUROC", "95 % interval", "FPR at 95 % TPR"), rows, below)
    found.drawn.append(lambda: section(result))


def _views(options: "Options") -> "Views | None":
    from jaxnets.evaluate.views import find_views

    return None if options.tta is None else find_views(options.tta)


def _distances(
    evaluation: "Evaluation", other: "Examples", predictions: "Predictions", threads: int
) -> "tuple[np.ndarray, np.ndarray] | None":
    """Returns how far the evaluated and the other images are from the training images, where the run can tell."""
    import numpy as np

    from jaxnets.evaluate.calibrate import profiles

    classifier = evaluation.classifier
    if classifier is None or classifier.spread is None or evaluation.asked is not classifier:
        return None
    seen = evaluation.card.preprocess
    if other.shape != (seen.height, seen.width, seen.channels):
        return None  # at another size than the training images were seen at, or what views are cut out of
    sides = ((evaluation.examples, evaluation.predictions), (other, predictions))
    chosen = [np.arange(len(said)) if said.index is None else said.index for _, said in sides]
    own, others = (
        classifier.spread.distances(profiles(classifier, examples, index, threads))
        for (examples, _), index in zip(sides, chosen, strict=True)
    )
    return own, others


def table_over(options: "Options") -> "Runs":
    """Returns the table that --table asks for.

    Raises:
        UserError: if none of what it names is a run.
    """
    from jaxnets.evaluate.run import evaluate_run
    from jaxnets.evaluate.runs_table import table_of

    def evaluate(run: Any) -> dict[str, Any]:
        return evaluate_run(run, split=options.split, source=options.source, batch_size=options.batch_size)

    return table_of(options.table or (), options.split, evaluate, anew=options.source is not None)


def tabulate(runs: "Runs", found: Further) -> None:
    """Adds a table over runs to the answers."""
    from jaxnets.evaluate.page.runs import runs as section
    from jaxnets.evaluate.runs_table import shown

    found.metrics["table"] = runs.to_json()
    columns = [column for column in runs.columns if column[0] in _CHIEF]
    best = {key: runs.best(key) for key, _, _ in columns}
    about = {
        "model": [row.model for row in runs.rows],
        "step": ["–" if row.step is None else str(row.step) for row in runs.rows],
        "pixels": [row.image_size for row in runs.rows],
        "images": [f"{row.count:,}" for row in runs.rows],
        "split": [row.split for row in runs.rows],
        "data": [row.data for row in runs.rows],
    }
    # A terminal is narrow: what all runs have in common is said once.
    common = {key: values[0] for key, values in about.items() if len(set(values)) == 1}
    different = [key for key in about if key not in common and key != "data"]
    rows = [
        (
            row.name,
            *(about[key][i] for key in different),
            *(shown(key, row.figures.get(key)) + (" *" if i in best[key] else "  ") for key, _, _ in columns),
        )
        for i, row in enumerate(runs.rows)
    ]
    below = ["* the best"] if any(best.values()) else []
    below += ["all: " + ", ".join(f"{key} {value}" for key, value in common.items())] if common else []
    head = ("run", *different, *(title for _, title, _ in columns))
    found.say(f"{len(runs.rows)} runs", head, rows, [*below, *runs.notes])
    found.drawn.append(lambda: section(runs))
