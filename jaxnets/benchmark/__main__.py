"""Timings: `python -m jaxnets.benchmark --config CONFIG` of a training, `… input --source SOURCE` of its input."""

import argparse
import sys

from jaxnets import cli
from jaxnets.benchmark import input, training


def main() -> None:
    if sys.argv[1:2] == ["input"]:
        parser = argparse.ArgumentParser(
            prog="python -m jaxnets.benchmark input",
            description="Time the delivery of training batches to the step, beside other libraries on the same files.",
            allow_abbrev=False,
        )
        parser.add_argument("command", choices=["input"], help=argparse.SUPPRESS)
        input.add_options(parser)
        cli.run(parser, input.run, takes_rest=True)
    parser = argparse.ArgumentParser(
        prog="python -m jaxnets.benchmark",
        description="Time the training loop and the bare compiled step on the same batch, side by side. "
        "python -m jaxnets.benchmark input --help: time the input alone.",
        allow_abbrev=False,
    )
    training.add_options(parser)
    cli.run(parser, training.run, takes_rest=True)


if __name__ == "__main__":
    main()
