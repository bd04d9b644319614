"""Evaluates: `python -m jaxnets.evaluate --workdir DIR [--split S]` writes DIR/report: a page, figures, predictions."""

import argparse
import math
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jaxnets import cli, terminal
from jaxnets.cache import cache_directory, use_compilation_cache
from jaxnets.config import DistributedConfig
from jaxnets.config_check import check_distributed
from jaxnets.evaluate.options import Options, add_options
from jaxnets.run.storage import Place

if TYPE_CHECKING:
    from jaxnets.evaluate.run import Evaluation

_SHARES = ("precision", "recall", "f1")  # of a class
_SHARES_OF_SEVERAL = (*_SHARES, "average_precision")  # where images have several labels
_CLASSES = 100  # rows of the table in a terminal


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m jaxnets.evaluate",
        description="Evaluate a run on every example of a split, each exactly once, and write a report: a page "
        "(index.html), metrics.json, predictions.csv and drawings.",
    )
    add_options(parser)
    together = parser.add_argument_group("several hosts", "found on TPU pods, SLURM, Open MPI and Kubernetes; else:")
    together.add_argument("--coordinator", metavar="HOST:PORT", help="of process 0")
    together.add_argument("--processes", type=int, help="that evaluate together")
    together.add_argument("--process", type=int, help="the number of this one, from 0")
    cli.run(parser, _evaluate)


def _evaluate(namespace: argparse.Namespace, _: list[str]) -> int:
    options = Options.parsed(namespace)
    addresses = DistributedConfig(
        coordinator=namespace.coordinator, processes=namespace.processes, process=namespace.process
    )
    check_distributed(addresses, "--")
    use_compilation_cache()
    from jaxnets.train.hosts import join

    hosts = join(addresses)
    from jaxnets.evaluate.ask import ask
    from jaxnets.train.stop import Stop
    from jaxnets.train.watch import Watch, watching

    with watching(Watch(Stop(), hosts, hang_minutes=None), hosts):
        answer = ask(options)
    if not hosts.leads:
        return 0
    console = terminal.console()
    if answer.evaluation is not None:
        _show(answer.metrics)
    answer.further.show(console)
    folder = options.out
    if options.workdir is not None and answer.evaluation is not None:
        folder = report_target(folder, answer.evaluation.run.report).parent
    if folder is None:
        files = "it as runs.csv and runs.html" if answer.evaluation is None else "the report"
        console.print(f"--out FOLDER writes {files}")
        return 0
    *first, last = (str(folder / name) if number == 0 else name for number, name in enumerate(answer.write(folder)))
    console.print(f"written to {', '.join(first)} and {last}", soft_wrap=True)
    if options.workdir is not None and answer.evaluation is not None:
        _show_elsewhere(answer.evaluation, folder, whole=options.is_of_the_run)
    return 0


def _show_elsewhere(evaluation: "Evaluation", folder: Place, *, whole: bool) -> None:
    """Shows a run's report where its curves are: of an evaluation of it as it is, its confusion matrix and figures."""
    run = evaluation.run
    if whole and isinstance(folder, Path) and isinstance(run.tensorboard, Path) and os.access(run.tensorboard, os.W_OK):
        from jaxnets.track.report import show_confusion

        show_confusion(run.tensorboard, folder, evaluation.metrics["step"])
    if folder == run.report:
        from jaxnets.track.begin import catch_up

        catch_up(run, run.read_config(), row=whole)


def _show(metrics: dict[str, Any]) -> None:
    """Prints what is most asked for."""
    from rich.table import Table

    console = terminal.console()
    several = "hamming_loss" in metrics
    shares = _SHARES_OF_SEVERAL if several else _SHARES
    step = "" if metrics["step"] is None else f", step {metrics['step']}"
    table = Table(
        "class",
        "examples",
        *(["threshold"] if several else []),
        *(key.replace("_", " ") for key in shares),
        title=f"{metrics['model']}{step}, {metrics['split']}",
    )
    rows = metrics["per_class"].items()
    if len(rows) > _CLASSES:
        rows = [(name, row) for name, row in rows if row["count"]]
    for name, row in list(rows)[:_CLASSES]:
        own = [f"{row['threshold']:.3g}"] if several else []
        table.add_row(terminal.shown(name), str(row["count"]), *own, *(_percent(row[key]) for key in shares))
    said = "; ".join((f"{metrics['source']}, {metrics['split']}", *metrics["notes"]))
    console.print(f"data: {terminal.shown(said)}", soft_wrap=True)
    console.print(table)
    if (more := len(metrics["per_class"]) - min(len(rows), _CLASSES)) > 0:
        console.print(f"and {more:,} classes more, in metrics.json")
    if several:
        half = ""
        if "macro_f1_at_half" in metrics:
            macro, micro = (_percent(metrics[f"{kind}_f1_at_half"]) for kind in ("macro", "micro"))
            half = f" ({macro} and {micro} at thresholds of one half)"
        console.print(
            f"mean average precision {_percent(metrics['mean_average_precision'])}, F1 "
            f"{_percent(metrics['macro_f1'])} over classes and {_percent(metrics['micro_f1'])} over all labels{half}, "
            f"Hamming loss {_percent(metrics['hamming_loss'])}",
            soft_wrap=True,
        )
    top5 = f", top-5 {metrics['top5']:.2%}" if "top5" in metrics else ""
    what = "all labels of an image right" if several else "accuracy"
    console.print(
        f"{what} {metrics['accuracy']:.2%} ({metrics['correct']} of {metrics['count']}){top5}, loss "
        f"{metrics['loss']:.4f}"
    )
    interval = metrics["interval"]
    how = f"of {interval['groups']:,} groups" if "groups" in interval else "of as many images"
    console.print(f"95 % interval {interval['low']:.2%} to {interval['high']:.2%}, {how}")
    if "balanced_accuracy" in metrics:
        console.print(
            f"over classes, each counting the same: accuracy {_percent(metrics['balanced_accuracy'])}, F1 "
            f"{_percent(metrics['macro_f1'])}"
        )
    console.print(
        f"calibration error {_percent(metrics['ece'])}, ROC-AUC {_number(metrics['roc_auc'])}, log-loss "
        f"{metrics['log_loss']:.4f}, Brier score {metrics['brier']:.4f}"
    )
    from jaxnets.evaluate.decisions import in_words

    for sentence in in_words(metrics):
        console.print(terminal.shown(sentence), soft_wrap=True)


def _percent(share: float | None) -> str:
    return "—" if share is None or math.isnan(share) else f"{share:.2%}"


def _number(value: float | None) -> str:
    return "—" if value is None or math.isnan(value) else f"{value:.4f}"


def report_target(out: Path | None, report: Place) -> Place:
    """A run directory may be read-only; the report then goes to the user's cache."""
    if out is not None:
        return out / "metrics.json"
    if not isinstance(report, Path):
        return report / "metrics.json"
    writable = next(parent for parent in (report, *report.parents) if parent.exists())
    if os.access(writable, os.W_OK):
        return report / "metrics.json"
    return cache_directory() / "reports" / report.parent.absolute().name / "metrics.json"


if __name__ == "__main__":
    main()
