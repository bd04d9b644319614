"""Chooses what to label next: `python -m jaxnets.select --model MODEL --images FOLDER --count N [--method mix]`.

It writes a table with the model's guesses as labels, to be corrected and trained on.
"""

import argparse
from pathlib import Path

from jaxnets import cli
from jaxnets.terminal import json_text, shown

_NAMES = ("margin", "entropy", "badge", "kcentre", "mix", "random")  # jaxnets.select.methods, without NumPy


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m jaxnets.select",
        description="Choose the images that are worth labelling next, and write a table of them that csv: reads, with "
        "the model's guesses as labels, to be checked.",
    )
    cli.add_model_option(parser)
    parser.add_argument(
        "--images", required=True, nargs="+", type=Path, metavar="FOLDER", help="folders to choose from, or images"
    )
    parser.add_argument("--count", required=True, type=int, metavar="N", help="how many images to choose")
    parser.add_argument(
        "--method",
        default="mix",
        choices=_NAMES,
        help="margin, entropy: what the model is unsure of; kcentre: what is unlike all that has a label; badge, mix "
        "(default): both; random: any",
    )
    parser.add_argument(
        "--labelled",
        metavar="SOURCE",
        help="images that have a label already: a CSV file, folder:DIR, list:FILE; the table will hold them too",
    )
    parser.add_argument("--root", help="the folder that paths in --labelled are relative to (default: the file's own)")
    parser.add_argument(
        "--out", type=Path, help="the table to write; there must be none (default: labels.csv in the first folder)"
    )
    parser.add_argument("--seed", type=int, default=0, help="of what is drawn (default 0)")
    parser.add_argument("--json", action="store_true", help="print what was chosen as one JSON object")
    cli.add_checkpoint_options(parser)
    cli.run(parser, _select)


def _select(options: argparse.Namespace, _: list[str]) -> int:
    import sys

    first = options.images[0]
    out = options.out or (first if first.is_dir() else first.parent) / "labels.csv"

    def say(text: str) -> None:
        print(shown(text), file=sys.stderr if options.json else sys.stdout, flush=True)

    from jaxnets.select.run import select  # JAX and all that

    found = select(
        options.model,
        options.images,
        options.count,
        method=options.method,
        labelled=options.labelled,
        root=options.root,
        out=out,
        seed=options.seed,
        checkpoint=options.checkpoint,
        weights=options.weights,
        say=say,
    )
    for error in found.unreadable[:5]:
        say(f"left out: {error}")
    if len(found.unreadable) > 5:
        say(f"left out: {len(found.unreadable) - 5:,} more that cannot be read")
    if options.json:
        chosen = [vars(one) for one in found.chosen]
        content = {"method": found.method, "out": str(found.out), "main": found.main, "chosen": chosen}
        print(json_text(content))
        return 0
    say(f"{out}: {len(found.chosen):,} of {found.unlabelled:,} images, by {found.method}; their labels are guesses")
    say(f"correct them there, then: {found.main}")
    return 0


if __name__ == "__main__":
    main()
