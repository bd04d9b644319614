"""Finds what a config leaves open: `python -m jaxnets.sweep --config CONFIG --range | --space FILE --out DIR`."""

import argparse
from pathlib import Path

from jaxnets import cli
from jaxnets.config import Config
from jaxnets.data.absolute import with_absolute_paths
from jaxnets.errors import UserError
from jaxnets.flags import load_config
from jaxnets.keys import ConfigParser


def main() -> None:
    parser = ConfigParser(
        prog="python -m jaxnets.sweep",
        description="Find a learning rate by a range test (--range), or the best values of several keys by trials of "
        "them (--space). The same command on the same directory goes on with a sweep, or joins it.",
        allow_abbrev=False,
    )
    parser.add_argument("--config", required=True, help="a config file, or the name of one that ships with jaxnets")
    parser.add_argument("--out", required=True, help="the directory to write to")
    parser.add_argument("--range", action="store_true", help="train for some steps at a rate that grows")
    parser.add_argument("--from", dest="low", type=float, help="with --range: the first rate (default 1e-6)")
    parser.add_argument("--to", dest="high", type=float, help="with --range: the last rate (default 10)")
    parser.add_argument("--steps", type=int, help="with --range: how many steps (default 100)")
    parser.add_argument("--space", help="a Python file whose get_space() returns the keys and what they may be")
    parser.add_argument("--trials", type=int, help="with --space: how many there are to be in all (default 20)")
    parser.add_argument("--no-pruning", action="store_true", help="with --space: run every trial to its end")
    cli.run(parser, _find, takes_rest=True)


def _find(options: argparse.Namespace, overrides: list[str]) -> int:
    if options.range and options.space:
        raise UserError("--range and --space are two questions: find the rate first, then sweep around it")
    if not options.range and not options.space:
        raise UserError("give --range for a learning-rate range test, or --space FILE for trials of what FILE names")
    kind, others = ("--range", "trials no_pruning") if options.range else ("--space", "low high steps")
    names = {"low": "--from", "high": "--to", "no_pruning": "--no-pruning"}
    for name in others.split():
        if getattr(options, name) not in (None, False):
            raise UserError(f"{names.get(name, f'--{name}')} does not go with {kind}: leave it out")
    config = with_absolute_paths(load_config(options.config, overrides))
    return _range(options, config) if options.range else _sweep(options, config)


def _range(options: argparse.Namespace, config: Config) -> int:
    from jaxnets.run.directory import RunDirectory

    folder = Path(options.out).expanduser().absolute()
    if RunDirectory(folder).is_run():
        raise UserError(f"{folder} is a run directory, which a range test leaves alone: give another --out")
    RunDirectory(folder).check_writable()

    from jaxnets import figures, terminal
    from jaxnets.run.directory import write_json
    from jaxnets.sweep import range_test
    from jaxnets.sweep.best import write_file
    from jaxnets.sweep.drawing import draw_range

    console = terminal.console()
    found = range_test.find_rate(
        config,
        low=range_test.LOW if options.low is None else options.low,
        high=range_test.HIGH if options.high is None else options.high,
        steps=range_test.STEPS if options.steps is None else options.steps,
        say=lambda text: console.print(terminal.shown(text), soft_wrap=True),
    )
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "range.json", {"model": config.model.name, "source": config.data.source, **found.to_json()})
    title = f"{config.model.name}, {config.optimizer.name}, batch {found.batch_size:,}"
    write_file(folder / "range.png", figures.png(draw_range(found, title)))
    for line in found.lines():
        console.print(terminal.shown(line), soft_wrap=True)
    console.print(terminal.shown(f"drawn in {folder / 'range.png'}"), soft_wrap=True)
    return 0 if found.suggestion is not None else 1


def _sweep(options: argparse.Namespace, config: Config) -> int:
    from jaxnets.sweep.run import TRIALS, sweep

    trials = TRIALS if options.trials is None else options.trials
    return sweep(config, options.space, options.out, trials=trials, pruning=not options.no_pruning).status


if __name__ == "__main__":
    main()
