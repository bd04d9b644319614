"""Evaluates: `python -m jaxnets.evaluate --workdir DIR [--split S]` writes DIR/report/metrics.json."""

import argparse
import math
import os
from pathlib import Path

from jaxnets import cli, terminal
from jaxnets.cache import cache_directory, use_compilation_cache
from jaxnets.config import DistributedConfig, check_distributed
from jaxnets.errors import UserError
from jaxnets.run.storage import Place

_SHARES_OF_SEVERAL = ("precision", "recall", "f1", "average_precision")  # of a class, where images have several labels


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m jaxnets.evaluate",
        description="Evaluate a run on every example of a split, each exactly once.",
    )
    parser.add_argument("--workdir", required=True, help="the run directory, or gs://BUCKET/RUN")
    parser.add_argument("--split", default="test", help="test (default), train, or validation where there is one")
    parser.add_argument("--batch-size", type=int, help="examples at a time; changes the speed, not the result")
    cli.add_checkpoint_options(parser)
    parser.add_argument(
        "--source", help="new data to evaluate on, or where the run's own lies now (as config.data.source)"
    )
    parser.add_argument(
        "--thresholds",
        nargs="?",
        const="validation",
        metavar="SPLIT",
        help="of several labels: choose first, on this split (validation), from which probability on each is said, and "
        "keep that in the run's model.json",
    )
    parser.add_argument("--out", type=Path, help="folder for metrics.json (default: DIR/report)")
    together = parser.add_argument_group("several hosts", "found on TPU pods, SLURM, Open MPI and Kubernetes; else:")
    together.add_argument("--coordinator", metavar="HOST:PORT", help="of process 0")
    together.add_argument("--processes", type=int, help="that evaluate together")
    together.add_argument("--process", type=int, help="the number of this one, from 0")
    cli.run(parser, _evaluate)


def _evaluate(options: argparse.Namespace, _: list[str]) -> int:
    if options.batch_size is not None and options.batch_size < 1:
        raise UserError(f"--batch-size must be at least 1, found {options.batch_size}")
    addresses = DistributedConfig(coordinator=options.coordinator, processes=options.processes, process=options.process)
    check_distributed(addresses, "--")
    use_compilation_cache()
    from jaxnets.train.hosts import join

    hosts = join(addresses)
    from rich.table import Table

    from jaxnets.evaluate.run import evaluate_run
    from jaxnets.run.directory import open_run, write_json
    from jaxnets.train.stop import Stop
    from jaxnets.train.watch import Watch, watching

    with watching(Watch(Stop(), hosts, hang_minutes=None), hosts):
        run = open_run(options.workdir)
        report = evaluate_run(
            run,
            split=options.split,
            batch_size=options.batch_size,
            checkpoint=options.checkpoint,
            weights=options.weights,
            source=options.source,
            choose_on=options.thresholds,
        )
    if not hosts.leads:
        return 0
    target = report_target(options.out, run.report)
    write_json(target, report)

    console = terminal.console()
    several = "hamming_loss" in report
    shares = _SHARES_OF_SEVERAL if several else ("accuracy",)
    table = Table(
        "class",
        "examples",
        *(["threshold"] if several else []),
        *(key.replace("_", " ") for key in shares),
        title=f"{report['model']}, step {report['step']}, {report['split']}",
    )
    for name, row in report["per_class"].items():
        own = [f"{row['threshold']:.3g}"] if several else []
        table.add_row(terminal.shown(name), str(row["count"]), *own, *(_percent(row[key]) for key in shares))
    said = "; ".join((f"{report['source']}, {report['split']}", *report["notes"]))
    console.print(f"data: {terminal.shown(said)}", soft_wrap=True)
    console.print(table)
    if several:
        half = ""
        if "macro_f1_at_half" in report:
            macro, micro = (_percent(report[f"{kind}_f1_at_half"]) for kind in ("macro", "micro"))
            half = f" ({macro} and {micro} at thresholds of one half)"
        console.print(
            f"mean average precision {_percent(report['mean_average_precision'])}, F1 "
            f"{_percent(report['macro_f1'])} over classes and {_percent(report['micro_f1'])} over all labels{half}, "
            f"Hamming loss {_percent(report['hamming_loss'])}",
            soft_wrap=True,
        )
    top5 = f", top-5 {report['top5']:.2%}" if "top5" in report else ""
    what = "all labels of an image right" if several else "accuracy"
    console.print(
        f"{what} {report['accuracy']:.2%} ({report['correct']} of {report['count']}){top5}, loss {report['loss']:.4f}"
    )
    if "balanced_accuracy" in report:
        console.print(
            f"over classes, each counting the same: accuracy {_percent(report['balanced_accuracy'])}, F1 "
            f"{_percent(report['macro_f1'])}"
        )
    console.print(f"written to {target}", soft_wrap=True)
    return 0


def _percent(share: float | None) -> str:
    return "—" if share is None or math.isnan(share) else f"{share:.2%}"


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
