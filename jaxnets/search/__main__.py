"""Finds similar images: `python -m jaxnets.search --model MODEL --index DIR --images FOLDER` builds an index of them.

Then `python -m jaxnets.search --index DIR --query IMAGE --top K` finds what is like an image, `--duplicates` what is in
the index twice, and `--leakage FOLDER` which images of a test are in it.
"""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from jaxnets import cli
from jaxnets.cache import use_compilation_cache
from jaxnets.errors import UserError
from jaxnets.terminal import json_text, shown

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jaxnets.search.index import Index
    from jaxnets.search.pairs import Pair

_SHOWN = 20  # pairs of a terminal


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m jaxnets.search",
        description="Build an index of images, add images to one, and find in it what is like an image.",
    )
    parser.add_argument("--model", help=f"{cli.MODEL}; needed to build, else it is what the index was built with")
    parser.add_argument("--index", required=True, type=Path, metavar="DIR", help="the index's folder")
    parser.add_argument("--images", nargs="+", type=Path, metavar="FOLDER", help="images to build the index of, or add")
    parser.add_argument(
        "--query", nargs="+", type=Path, metavar="IMAGE", help="images, or folders, to find the like of"
    )
    parser.add_argument("--top", type=int, default=10, metavar="K", help="how many to find for each (default 10)")
    parser.add_argument("--duplicates", action="store_true", help="find images that are in the index twice or more")
    parser.add_argument(
        "--leakage", nargs="+", type=Path, metavar="FOLDER", help="find which of these images are in the index"
    )
    parser.add_argument(
        "--similarity", type=float, default=0.7,
        help="of vectors, from which --duplicates and --leakage compare images (default 0.7)",
    )  # fmt: skip
    parser.add_argument("--json", action="store_true", help="print what was found as one JSON object a line")
    cli.add_checkpoint_options(parser)
    cli.run(parser, _search)


def _search(options: argparse.Namespace, _: list[str]) -> int:
    asks = bool(options.query or options.duplicates or options.leakage)
    if not options.images and not asks:
        raise UserError("give --images to build an index, or --query, --duplicates or --leakage to ask one")
    if options.images and options.model is None:
        raise UserError("--images needs --model, whose vectors the index is of")
    if options.top < 1:
        raise UserError(f"--top must be at least 1, found {options.top}")

    def say(text: str) -> None:
        print(shown(text), file=sys.stderr if options.json else sys.stdout, flush=True)

    if options.images:
        from jaxnets.search.build import build_index

        built = build_index(
            options.model, options.index, options.images,
            checkpoint=options.checkpoint, weights=options.weights, say=say,
        )  # fmt: skip
        for error in built.unreadable[:5]:
            say(f"left out: {error}")
        if len(built.unreadable) > 5:
            say(f"left out: {len(built.unreadable) - 5:,} more that cannot be read")
        say(f"{options.index}: {built.head.count:,} vectors, {built.added:,} of them new; {built.head.plan.words()}")
    if not asks:
        return 0
    use_compilation_cache()
    from jaxnets.search.index import open_index

    index = open_index(options.index, options.model, checkpoint=options.checkpoint, weights=options.weights)
    status = 0
    if options.query:
        status = _query(index, options.query, options.top, options.json)
    if options.duplicates:
        from jaxnets.search.pairs import duplicates

        _show("duplicates", duplicates(index, options.similarity, say), options.json)
    if options.leakage:
        from jaxnets.search.pairs import leakage

        found = leakage(index, options.leakage, options.similarity, say)
        _show("leakage", found, options.json)
        status = status or int(bool(found))
    return status


def _query(index: "Index", given: "Sequence[Path]", top: int, as_json: bool) -> int:
    """Shows what is like each image; returns 1 where one cannot be read."""
    from jaxnets.data.decode import decode
    from jaxnets.data.sources import CorruptImage
    from jaxnets.data.sources.folder import image_files

    unreadable = 0
    for file in image_files(given):
        try:
            hits = index.find(decode(file, str(file), index.classifier.preprocess.white_level), top)[0]
        except CorruptImage as error:
            unreadable += 1
            if as_json:
                print(json_text({"file": str(file), "error": str(error)}))
            else:
                print(f"{shown(str(file))}\n  error: {shown(str(error))}")
            continue
        if as_json:
            print(json_text({"file": str(file), "hits": [vars(hit) for hit in hits]}))
        else:
            print(shown(str(file)))
            for hit in hits:
                print(f"  {hit.similarity:6.4f}  {shown(hit.file)}")
    return int(unreadable > 0)


def _show(what: str, pairs: "Sequence[Pair]", as_json: bool) -> None:
    if as_json:
        print(json_text({what: [vars(pair) for pair in pairs]}))
        return
    print(f"{what}: {len(pairs):,} pairs of images that are one")
    for pair in pairs[:_SHOWN]:
        turned = f", {pair.turned}" if pair.turned else ""
        print(f"  {pair.likeness:4.2f}{turned}\n    {shown(pair.first)}\n    {shown(pair.second)}")
    if len(pairs) > _SHOWN:
        print(f"  and {len(pairs) - _SHOWN:,} more (--json has all)")


if __name__ == "__main__":
    main()
