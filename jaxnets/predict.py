"""Predicts: `python -m jaxnets.predict --model MODEL IMAGE… [--top K] [--json]`."""

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jaxnets import cli
from jaxnets.cache import use_compilation_cache
from jaxnets.errors import UserError
from jaxnets.terminal import json_text, shown

if TYPE_CHECKING:
    import numpy as np

_BATCH = 64  # images that go through the model at once, at most


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m jaxnets.predict", description="Name what is in images, with probabilities."
    )
    cli.add_model_option(parser)
    parser.add_argument("images", nargs="+", type=Path, metavar="IMAGE", help="an image, or a folder of images")
    parser.add_argument("--top", type=int, default=5, metavar="K", help="how many classes to name (default 5)")
    parser.add_argument("--json", action="store_true", help="one JSON object an image and line")
    cli.add_checkpoint_options(parser)
    cli.add_engine_option(parser)
    cli.run(parser, _predict)


def _predict(options: argparse.Namespace, _: list[str]) -> int:
    if options.top < 1:
        raise UserError(f"--top must be at least 1, found {options.top}")
    from jaxnets.answer import as_json
    from jaxnets.data.decode import decode
    from jaxnets.data.sources import CorruptImage
    from jaxnets.data.sources.folder import image_files

    files = image_files(options.images)
    use_compilation_cache()
    from jaxnets.loading import load

    classifier = load(options.model, options.checkpoint, options.weights, options.engine)
    unreadable = 0
    for start in range(0, len(files), _BATCH):
        readable: list[Path] = []

        def decoded(chosen: list[Path], readable: list[Path] = readable) -> "Iterator[np.ndarray]":
            for file in chosen:
                try:
                    image = decode(file, str(file), classifier.preprocess.white_level)
                except CorruptImage as error:
                    _show({"file": str(file), "error": str(error)}, options.json)
                else:
                    readable.append(file)
                    yield image

        chosen = files[start : start + _BATCH]
        for file, row in zip(readable, classifier.rows(decoded(chosen)), strict=True):
            _show({"file": str(file), **as_json(classifier, row, options.top)}, options.json)
        unreadable += len(chosen) - len(readable)
    return 1 if unreadable else 0


def _show(found: dict[str, Any], as_json: bool) -> None:
    from jaxnets.answer import listed
    from jaxnets.trust.refusal import NONE_OF_THESE

    if as_json:
        print(json_text(found))
    elif "error" in found:
        print(f"{shown(found['file'])}\n  error: {shown(found['error'])}")
    else:
        print(shown(found["file"]))
        if "reason" in found:
            print(f"  {NONE_OF_THESE} ({shown(found['reason'])})")
        if "labels" in found and "reason" not in found:
            _show_set(found["labels"], found["top"])
        else:
            for row in found["top"]:
                print(f"  {row['probability']:7.2%}  {shown(row['label'])}")
        if "set" in found:
            print(f"  one of: {shown(listed(found['set']))}")


def _show_set(said: list[dict[str, Any]], top: list[dict[str, Any]]) -> None:
    """Shows the labels that an image is said to have, and below them as many others as `top` has room for."""
    from jaxnets.answer import listed

    print(f"  labels: {shown(listed([row['label'] for row in said]))}")
    others = [row for row in top if row not in said][: max(len(top) - len(said), 0)]
    for row in said + others:
        print(f"  {shown('✓') if row in said else ' '} {row['probability']:7.2%}  {shown(row['label'])}")


if __name__ == "__main__":
    main()
