"""Explains: `python -m jaxnets.explain --model MODEL IMAGE… --out DIR` draws what speaks for a class."""

import argparse
from pathlib import Path

from jaxnets import cli
from jaxnets.cache import use_compilation_cache
from jaxnets.errors import UserError
from jaxnets.terminal import shown


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m jaxnets.explain", description="Draw which places of images speak for a class (Grad-CAM)."
    )
    cli.add_model_option(parser)
    parser.add_argument("images", nargs="+", type=Path, metavar="IMAGE", help="an image, or a folder of images")
    parser.add_argument("--out", required=True, type=Path, help="folder for the drawings, NAME.png each")
    parser.add_argument(
        "--label", help="the class to explain, by name or number (default: the most probable, or each that is said)"
    )
    parser.add_argument("--stage", help="whose output is asked: stage1, stage2, … (default: the last)")
    cli.add_checkpoint_options(parser)
    cli.run(parser, _explain)


def _explain(options: argparse.Namespace, _: list[str]) -> int:
    import numpy as np

    from jaxnets.classifier import load
    from jaxnets.data.decode import decode
    from jaxnets.data.sources import CorruptImage
    from jaxnets.data.sources.folder import image_files
    from jaxnets.explain.overlay import sheet
    from jaxnets.preprocess import with_channels

    files = image_files(options.images)
    use_compilation_cache()
    classifier = load(options.model, options.checkpoint, options.weights)
    label = None if options.label is None else classifier.find_label(options.label)
    try:
        options.out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"--out {options.out} cannot be made ({error.strerror}): give a folder for the drawings"
        ) from error
    unreadable = 0
    for number, file in enumerate(files):
        try:
            image = with_channels(decode(file, str(file), classifier.preprocess.white_level), 3)
        except CorruptImage as error:
            print(f"{shown(str(file))}\n  error: {shown(str(error))}")
            unreadable += 1
            continue
        explained = classifier.explain_answer(image, label, options.stage)
        # Two images of one name from different folders both get their drawing.
        target = options.out / f"{file.stem}.png"
        if target.stem in {other.stem for other in files[:number]}:
            target = options.out / f"{file.stem}-{number}.png"
        try:
            captions = [f"{classifier.labels[e.label]}  {e.probability:.1%}{e.remark}" for e in explained]
            sheet(image, list(zip((e.heat for e in explained), captions, strict=True))).save(target)
        except OSError as error:
            raise UserError(f"{target} cannot be written ({error}): make room or permission for it") from error
        print(shown(str(file)))
        for found in explained:
            name = shown(classifier.labels[found.label])
            print(f"  {found.probability:7.2%}  {name}{found.remark}  {shown(str(target))}")
            if not np.any(found.heat):
                print("  nothing in this stage speaks for it: the map is empty")
    return 1 if unreadable else 0


if __name__ == "__main__":
    main()
