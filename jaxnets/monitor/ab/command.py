"""The command `python -m jaxnets.monitor ab`: its options, and what it shows."""

import argparse
import traceback
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from jaxnets import terminal
from jaxnets.errors import UserError

if TYPE_CHECKING:
    from jaxnets.monitor.ab.compare import Comparison
    from jaxnets.monitor.records import Records

DESCRIPTION = (
    "Compare two models by the records of both: how often they are right, say 'none of these', or are unsure. The "
    "probabilities and intervals called always valid hold however often one looks. The status is 0 where no "
    "difference is sure, 1 where one is, 2 where nothing could be compared."
)
_DIFFERENCE, _MISTAKE = 1, 2  # statuses


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--log", required=True, type=Path, metavar="DIR", help="what serve --record DIR has written")
    parser.add_argument("--a", required=True, metavar="NAME", help="the old model, as it is served")
    parser.add_argument("--b", required=True, metavar="NAME", help="the other one")
    parser.add_argument("--labels", type=Path, metavar="CSV", help="with the columns id and label: the accuracy")
    parser.add_argument("--out", type=Path, metavar="FILE", help="write the comparison there, as JSON")
    parser.add_argument("--json", action="store_true", help="print the comparison as JSON instead of a table")
    window = parser.add_argument_group("window", "without one: since both have answered")
    window.add_argument("--window", metavar="1h", help="the latest records of that length: 90s, 30m, 1h, 7d, 2w")
    window.add_argument("--since", metavar="TIME", help="ISO 8601, UTC unless it says otherwise, or seconds since 1970")
    window.add_argument("--until", metavar="TIME", help="likewise: the records before it")
    bounds = parser.add_argument_group("bounds")
    bounds.add_argument(
        "--alpha", type=float, help="how often a difference may ever be said where there is none (default 0.05)"
    )
    bounds.add_argument("--effect", type=float, help="difference that is to be found soonest (default 0.02)")
    bounds.add_argument("--low", type=float, help="confidence below which an answer counts as unsure (default 0.5)")
    bounds.add_argument("--least-records", type=int, metavar="N", help="of each model (default 100)")
    bounds.add_argument("--every", type=int, metavar="N", help="records between looks (default 100)")


def run(options: argparse.Namespace, _: list[str]) -> int:
    try:
        comparison = _compare(options)
    except UserError as error:
        error.status = _MISTAKE
        raise
    except Exception:  # Python's own status is 1, which would be read as a difference
        traceback.print_exc()
        return _MISTAKE
    return _DIFFERENCE if comparison.differing else 0


def _compare(options: argparse.Namespace) -> "Comparison":
    from jaxnets.evaluate.files import metrics_text, write_file
    from jaxnets.monitor.ab.compare import Bounds, compare
    from jaxnets.monitor.log import find_log, read_log

    if options.a == options.b:
        raise UserError(f"--a and --b are both {options.a}: name two models")
    given = {name: getattr(options, name) for name in Bounds.__dataclass_fields__}
    bounds = Bounds(**{name: value for name, value in given.items() if value is not None})
    pair = [read_log(find_log(options.log, name)) for name in (options.a, options.b)]
    notes = [note for records in pair for note in records.notes]
    pair = _cut(options, *pair)
    if options.labels is not None:
        from jaxnets.monitor.accuracy import with_labels

        for number, records in enumerate(pair):
            pair[number], note = with_labels(records, options.labels)
            notes.append(f"{records.about.model}: {note}")
    comparison = compare(pair[0], pair[1], bounds)
    comparison = replace(comparison, notes=(*comparison.notes, *notes))
    text = metrics_text(comparison.to_json())
    if options.out is not None:
        write_file(options.out, text.encode())
    if options.json:
        print(text, end="")
    else:
        _show(comparison)
    return comparison


def _cut(options: argparse.Namespace, a: "Records", b: "Records") -> "list[Records]":
    """Returns the records of the window: of the same span of time on both sides."""
    from jaxnets.monitor.log import cut, parse_length, parse_time, shown

    since, until = (
        None if text is None else parse_time(text, f"--{name}")
        for name, text in (("since", options.since), ("until", options.until))
    )
    if since is not None and until is not None and since >= until:
        raise UserError(f"--since {options.since} is not before --until {options.until}: exchange them")
    pair = [cut(records, None, since, until) for records in (a, b)]
    for records in pair:
        if not len(records):
            first, last = (shown(float(time)) for time in (a if records is pair[0] else b).rows["time"][[0, -1]])
            raise UserError(
                f"the window has no records of {records.about.model}: its log's are of {first} to {last} UTC, give "
                "other times"
            )
    begun = max(float(records.rows["time"][0]) for records in pair)
    if options.window is not None:
        latest = max(float(records.rows["time"][-1]) for records in pair)
        begun = max(begun, latest - parse_length(options.window))
    return [cut(records, None, begun, None) for records in pair]


def _show(comparison: "Comparison") -> None:
    from rich.table import Column, Table

    console = terminal.console()
    a, b = (terminal.shown(of.about.model) for of in (comparison.a, comparison.b))
    how = (
        f"{comparison.paired:,} images that both answered"
        if comparison.paired
        else "{:,} and {:,} records".format(*comparison.measures[-1].counts)
    )
    console.print(f"{a} (A) and {b} (B): {how}", soft_wrap=True)
    sure = 1 - comparison.bounds.alpha
    found = Table(
        Column("", no_wrap=True),
        "A",
        "B",
        "B − A",
        "95 %, at one look",
        f"{sure:.0%}, always valid",
        "p, always valid",
        "",
    )
    for one in comparison.measures:
        mark = "" if one.name not in comparison.differing else "B more" if one.b > one.a else "B less"
        found.add_row(
            one.name, f"{one.a:.2%}", f"{one.b:.2%}", f"{one.b - one.a:+.2%}",
            *(f"{100 * each.low:+.2f} … {100 * each.high:+.2f}" for each in (one.interval, one.always)),
            f"{one.adjusted:.2g}", mark,
        )  # fmt: skip
    console.print(found)
    for note in comparison.notes:
        console.print(f"note: {terminal.shown(note)}", soft_wrap=True)
    differing = ", ".join(comparison.differing)
    console.print(f"they differ in: {differing}" if differing else "no difference is sure yet", soft_wrap=True)
