"""Evaluates: `python -m jaxnets.evaluate --workdir DIR [--split S]` writes DIR/report: a page, figures, predictions."""

import argparse
import math
import os
import re
from pathlib import Path
from typing import Any

from jaxnets import cli, terminal
from jaxnets.cache import cache_directory, use_compilation_cache
from jaxnets.config import DistributedConfig, check_distributed
from jaxnets.errors import UserError
from jaxnets.run.storage import Place

_SHARES = ("precision", "recall", "f1")  # of a class
_SHARES_OF_SEVERAL = (*_SHARES, "average_precision")  # where images have several labels
_CLASSES = 100  # rows of the table in a terminal


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m jaxnets.evaluate",
        description="Evaluate a run on every example of a split, each exactly once, and write a report: a page "
        "(index.html), metrics.json, predictions.csv and drawings.",
    )
    parser.add_argument("--workdir", required=True, help="the run directory, or gs://BUCKET/RUN")
    parser.add_argument("--split", default="test", help="test (default), train, or validation where there is one")
    parser.add_argument("--batch-size", type=int, help="examples at a time; changes the speed, not the result")
    cli.add_checkpoint_options(parser)
    parser.add_argument(
        "--source", help="new data to evaluate on, or where the run's own lies now (as config.data.source)"
    )
    parser.add_argument(
        "--model", type=Path, metavar="FILE.onnx", help="an ONNX file exported from the run, which is judged instead"
    )
    parser.add_argument(
        "--tta",
        metavar="VIEWS",
        help="test-time augmentation, the mean of the logits: mirror, airbench (mirror and shifts by a pixel), crops, "
        "ten-crops",
    )
    parser.add_argument(
        "--size", help="pixels that images are brought to: a side, or HEIGHTxWIDTH (default: the model's)"
    )
    parser.add_argument(
        "--thresholds",
        nargs="?",
        const="validation",
        metavar="SPLIT",
        help="of several labels: choose first, on this split (validation), from which probability on each is said, and "
        "keep that in the run's model.json",
    )
    trust = parser.add_argument_group(
        "when to believe it", "fitted on held-out images, kept in model.json, and used wherever the run answers"
    )
    trust.add_argument("--calibrate", action="store_true", help="fit the temperature that makes probabilities honest")
    trust.add_argument(
        "--precision",
        type=float,
        metavar="P",
        help="answer only where P of the answers are right (95 %% sure)",
    )
    trust.add_argument("--coverage", type=float, metavar="C", help="answer the surest C of the images")
    trust.add_argument(
        "--familiar",
        type=float,
        nargs="?",
        const=0.99,
        metavar="SHARE",
        help="refuse what is unlike the training images, by energy and distance; SHARE (0.99) of images like them stay",
    )
    trust.add_argument(
        "--conformal", type=float, metavar="C", help="sets of classes that hold the right one for C of the images"
    )
    trust.add_argument("--fit-on", default="validation", metavar="SPLIT", help="the held-out images (validation)")
    trust.add_argument(
        "--costs", type=Path, metavar="FILE.csv", help="what saying a class (column) costs where another is true (row)"
    )
    parser.add_argument("--out", type=Path, help="folder for the report (default: DIR/report)")
    parser.add_argument("--parquet", action="store_true", help="predictions.parquet in place of predictions.csv")
    parser.add_argument("--no-page", action="store_true", help="figures and predictions alone, without the page")
    together = parser.add_argument_group("several hosts", "found on TPU pods, SLURM, Open MPI and Kubernetes; else:")
    together.add_argument("--coordinator", metavar="HOST:PORT", help="of process 0")
    together.add_argument("--processes", type=int, help="that evaluate together")
    together.add_argument("--process", type=int, help="the number of this one, from 0")
    cli.run(parser, _evaluate)


def _evaluate(options: argparse.Namespace, _: list[str]) -> int:
    if options.batch_size is not None and options.batch_size < 1:
        raise UserError(f"--batch-size must be at least 1, found {options.batch_size}")
    size = None if options.size is None else read_size(options.size)
    if options.parquet:
        from jaxnets.engine.onnx_file import require

        require("pyarrow", "parquet")
    addresses = DistributedConfig(coordinator=options.coordinator, processes=options.processes, process=options.process)
    check_distributed(addresses, "--")
    use_compilation_cache()
    from jaxnets.train.hosts import join

    hosts = join(addresses)
    from jaxnets.evaluate.calibrate import Wanted
    from jaxnets.evaluate.run import judge_run
    from jaxnets.run.directory import open_run
    from jaxnets.train.stop import Stop
    from jaxnets.train.watch import Watch, watching

    wanted = Wanted(
        temperature=options.calibrate,
        precision=options.precision,
        coverage=options.coverage,
        conformal=options.conformal,
        familiar=options.familiar,
        split=options.fit_on,
    )
    with watching(Watch(Stop(), hosts, hang_minutes=None), hosts):
        run = open_run(options.workdir)
        evaluation = judge_run(
            run,
            split=options.split,
            batch_size=options.batch_size,
            checkpoint=options.checkpoint,
            weights=options.weights,
            source=options.source,
            choose_on=options.thresholds,
            model=options.model,
            tta=options.tta,
            size=size,
            wanted=wanted,
            costs=options.costs,
        )
    if not hosts.leads:
        return 0
    _show(evaluation.metrics)
    from jaxnets.evaluate.write import write_report

    folder = report_target(options.out, run.report).parent
    names = write_report(evaluation, folder, page=not options.no_page, parquet=options.parquet)
    *first, last = (str(folder / name) if number == 0 else name for number, name in enumerate(names))
    terminal.console().print(f"written to {', '.join(first)} and {last}", soft_wrap=True)
    return 0


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
    for name, row in list(metrics["per_class"].items())[:_CLASSES]:
        own = [f"{row['threshold']:.3g}"] if several else []
        table.add_row(terminal.shown(name), str(row["count"]), *own, *(_percent(row[key]) for key in shares))
    said = "; ".join((f"{metrics['source']}, {metrics['split']}", *metrics["notes"]))
    console.print(f"data: {terminal.shown(said)}", soft_wrap=True)
    console.print(table)
    if len(metrics["per_class"]) > _CLASSES:
        console.print(f"and {len(metrics['per_class']) - _CLASSES:,} classes more, in metrics.json")
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


def read_size(text: str) -> int | tuple[int, int]:
    """Returns a side, or height and width, from what --size says.

    Raises:
        UserError: if it is neither.
    """
    found = re.fullmatch(r"([1-9]\d{0,3})(?:[x×]([1-9]\d{0,3}))?", text.strip())
    if found is None:
        raise UserError(f"--size must be pixels of a side, or HEIGHTxWIDTH, up to 9999, found {text!r}")
    height, width = found.groups()
    return int(height) if width is None else (int(height), int(width))


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
