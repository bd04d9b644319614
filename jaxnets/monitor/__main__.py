"""Compares what a service answered with a reference: `python -m jaxnets.monitor --reference RUN --log DIR`.

`python -m jaxnets.monitor ab --log DIR --a NAME --b NAME` compares two models by what both answered.
"""

import argparse
import os
import subprocess
import sys
import traceback
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from jaxnets import cli, terminal
from jaxnets.errors import UserError
from jaxnets.monitor.ab import command

if TYPE_CHECKING:
    from jaxnets.monitor.judge import Judgement
    from jaxnets.monitor.records import Records

_DRIFT, _MISTAKE = 1, 2  # statuses


def main() -> None:
    if sys.argv[1:2] == ["ab"]:
        parser = argparse.ArgumentParser(prog="python -m jaxnets.monitor ab", description=command.DESCRIPTION)
        parser.add_argument("command", choices=["ab"], help=argparse.SUPPRESS)
        command.add_options(parser)
        cli.run(parser, command.run)
    parser = argparse.ArgumentParser(
        prog="python -m jaxnets.monitor",
        description="Say whether what a service answered is still like its reference, and how often it is right. "
        "Writes index.html, monitor.json and monitor.prom (gauges for Prometheus). The status is 0 without drift, 1 "
        "where a bound is crossed, 2 where nothing could be judged. python -m jaxnets.monitor ab --help: compare two "
        "models.",
    )
    parser.add_argument(
        "--reference", required=True, metavar="RUN",
        help="a run, whose held-out images are the reference (another model: with --source), or a folder of records of "
        "a time when all was well",
    )  # fmt: skip
    parser.add_argument("--log", required=True, type=Path, metavar="DIR", help="what serve --record DIR has written")
    parser.add_argument("--name", help="of the served model, where the log has several")
    parser.add_argument("--out", type=Path, metavar="DIR", help="for the report (default: monitor, beside the records)")
    parser.add_argument("--json", action="store_true", help="print monitor.json instead of a table")
    window = parser.add_argument_group("window", "without one: all records")
    window.add_argument("--window", metavar="1h", help="the latest records of that length: 90s, 30m, 1h, 7d, 2w")
    window.add_argument("--since", metavar="TIME", help="ISO 8601, UTC unless it says otherwise, or seconds since 1970")
    window.add_argument("--until", metavar="TIME", help="likewise: the records before it")
    data = parser.add_argument_group("reference made of images")
    data.add_argument("--split", help="of the data (default: validation where there is one, else test)")
    data.add_argument("--source", metavar="S", help="the data, where it lies now, or other images")
    cli.add_checkpoint_options(data)  # type: ignore[arg-type]
    cli.add_engine_option(data)  # type: ignore[arg-type]
    bounds = parser.add_argument_group("bounds")
    bounds.add_argument("--alpha", type=float, help="how often a window without drift may alarm (default 0.01)")
    bounds.add_argument("--effect", type=float, help="that a significant difference must have (default 0.05)")
    bounds.add_argument(
        "--least-accuracy", type=float, metavar="SHARE",
        help="that the 95 %% interval of the accuracy must reach: the real one with --labels, else the expected one",
    )  # fmt: skip
    bounds.add_argument("--least-records", type=int, metavar="N", help="of a window and a reference (default 100)")
    parser.add_argument("--labels", type=Path, metavar="CSV", help="with the columns id and label: the real accuracy")
    parser.add_argument(
        "--on-drift", metavar="CMD",
        help="a shell command that is run where a bound is crossed; JAXNETS_DRIFT, _MODEL, _REPORT, _LOG, _REFERENCE, "
        "_SINCE and _UNTIL say what was found",
    )  # fmt: skip
    cli.run(parser, _monitor)


def _monitor(options: argparse.Namespace, _: list[str]) -> int:
    try:
        judgement, folder = _judge(options)
    except UserError as error:
        error.status = _MISTAKE
        raise
    except Exception:  # Python's own status is 1, which would be read as drift
        traceback.print_exc()
        return _MISTAKE
    if not options.json:
        _show(judgement)
        terminal.console().print(f"written to {folder / 'index.html'}, monitor.json and monitor.prom", soft_wrap=True)
    if not judgement.crossed:
        return 0
    if options.on_drift:
        _call(options, judgement, folder)
    return _DRIFT


def _judge(options: argparse.Namespace) -> "tuple[Judgement, Path]":
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # before JAX; a service may use the same card
    from jaxnets.monitor.judge import Bounds, judge
    from jaxnets.monitor.log import cut, find_log, parse_length, parse_time, read_log, shown

    given = {name: getattr(options, name) for name in Bounds.__dataclass_fields__}
    bounds = Bounds(**{name: value for name, value in given.items() if value is not None})
    length = None if options.window is None else parse_length(options.window)
    since, until = (
        None if text is None else parse_time(text, f"--{name}")
        for name, text in (("since", options.since), ("until", options.until))
    )
    log = find_log(options.log, options.name)
    folder = options.out or log / "monitor"
    reference = _reference(options)
    records, notes = read_log(log, reference.about), []
    if options.labels is not None:
        from jaxnets.monitor.accuracy import with_labels

        records, note = with_labels(records, options.labels)
        notes.append(note)
    if since is not None and until is not None and since >= until:
        raise UserError(f"--since {options.since} is not before --until {options.until}: exchange them")
    window = cut(records, length, since, until)
    if not len(window):
        first, last = (shown(float(time)) for time in records.rows["time"][[0, -1]])
        raise UserError(f"the window is empty: the log's records are of {first} to {last} UTC, give other times")
    judgement = judge(reference, window, bounds)
    judgement = replace(judgement, notes=(*judgement.notes, *notes))
    _write(judgement, folder, print_json=options.json)
    return judgement, folder


def _reference(options: argparse.Namespace) -> "Records":
    from jaxnets.cache import use_compilation_cache
    from jaxnets.monitor.reference import Asked, open_reference

    use_compilation_cache()
    return open_reference(
        Asked(
            reference=options.reference,
            split=options.split,
            source=options.source,
            checkpoint=options.checkpoint,
            weights=options.weights,
            engine=options.engine,
            name=options.name,
        )
    )


def _write(judgement: "Judgement", folder: Path, *, print_json: bool) -> None:
    from jaxnets.evaluate.files import metrics_text, write_file
    from jaxnets.monitor.gauges import gauges
    from jaxnets.monitor.page import page

    text = metrics_text(judgement.to_json())
    write_file(folder / "monitor.json", text.encode())
    write_file(folder / "monitor.prom", gauges(judgement).encode())
    write_file(folder / "index.html", page(judgement).encode("utf-8", "backslashreplace"))
    if print_json:
        print(text, end="")


def _show(judgement: "Judgement") -> None:
    from rich.table import Table

    from jaxnets.monitor.log import shown

    console = terminal.console()
    since, until = map(shown, judgement.span)
    about = judgement.window.about
    found = Table("", "test", "effect", "PSI", "Wasserstein", "p", "")
    for test in judgement.tests:
        apart = ("–", "–") if test.distances is None else tuple(_number(value) for value in test.distances)
        mark = "drift" if test.drifts else ""
        found.add_row(test.feature, test.kind, _number(test.outcome.effect), *apart, f"{test.adjusted:.1g}", mark)
    console.print(
        f"{terminal.shown(about.model)}: {len(judgement.window):,} records from {since} to {until} UTC, against "
        f"{len(judgement.reference):,}", soft_wrap=True,
    )  # fmt: skip
    console.print(found)
    kinds = {"expected": judgement.expected, "real": judgement.real, "of the reference": judgement.reference_accuracy}
    for kind, one in kinds.items():
        if one is not None:
            console.print(
                f"accuracy, {kind}: {one.share:.2%} ({one.interval.low:.2%} to {one.interval.high:.2%}; {one.count:,} "
                f"images, by {one.how})", soft_wrap=True,
            )  # fmt: skip
    for note in judgement.notes:
        console.print(f"note: {terminal.shown(note)}", soft_wrap=True)
    crossed = ", ".join(judgement.crossed)
    console.print(f"drift: {crossed}" if crossed else "no drift: no bound is crossed", soft_wrap=True)


def _number(value: float) -> str:
    return "–" if value != value else f"{value:.3f}"


def _call(options: argparse.Namespace, judgement: "Judgement", folder: Path) -> None:
    """Runs the command of --on-drift; where it fails the status is still that of drift, and a message says so."""
    from jaxnets.monitor.log import shown

    since, until = map(shown, judgement.span)
    told = {
        "DRIFT": ",".join(judgement.crossed),
        "MODEL": judgement.window.about.model,
        "REPORT": str(folder.absolute()),
        "LOG": str(options.log.absolute()),
        "REFERENCE": options.reference,
        "SINCE": since,
        "UNTIL": until,
    }
    sys.stdout.flush()
    status = subprocess.call(
        options.on_drift, shell=True, env={**os.environ, **{f"JAXNETS_{name}": text for name, text in told.items()}}
    )
    if status:
        print(f"warning: --on-drift {options.on_drift!r} ended with status {status}", file=sys.stderr)


if __name__ == "__main__":
    main()
