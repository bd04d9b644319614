"""Averages checkpoints: `python -m jaxnets.soup RUN [RUN…] --out DIR` writes a run directory that is no worse."""

import argparse

from jaxnets import cli
from jaxnets.cache import use_compilation_cache
from jaxnets.errors import UserError
from jaxnets.soup.recipe import RECIPES


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m jaxnets.soup",
        description="Average the weights of checkpoints of one run or several, as far as the validation split gains.",
    )
    parser.add_argument("runs", nargs="+", metavar="RUN", help="run directories of one architecture on the same data")
    parser.add_argument("--out", required=True, help="the run directory to write; it must not exist, or be empty")
    parser.add_argument(
        "--recipe",
        default="greedy",
        choices=RECIPES,
        help="greedy (default): from the best on, each is added that validation does not lose by; uniform: all",
    )
    parser.add_argument(
        "--checkpoints",
        help="all that a run keeps, best, newest, or a step (default: all of one run, the best of each of several)",
    )
    parser.add_argument("--weights", default="ema", choices=("ema", "raw"), help="ema (default), if averaged, or raw")
    parser.add_argument(
        "--batches",
        type=int,
        default=64,
        help="of training images, an epoch at most, that BatchNorm's statistics are taken from anew (default: 64)",
    )
    parser.add_argument("--source", help="where the runs' data lies now (as config.data.source)")
    cli.run(parser, _soup)


def _soup(options: argparse.Namespace, _: list[str]) -> int:
    if options.batches < 1:
        raise UserError(f"--batches must be at least 1, found {options.batches}")
    use_compilation_cache()
    from jaxnets.soup.run import soup

    soup(
        options.runs,
        options.out,
        recipe=options.recipe,
        checkpoints=options.checkpoints,
        weights=options.weights,
        batches=options.batches,
        source=options.source,
        quiet=False,
    )
    return 0


if __name__ == "__main__":
    main()
