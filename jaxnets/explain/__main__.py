"""Explains: `python -m jaxnets.explain --model MODEL IMAGE… --out DIR` draws what speaks for a class."""

import argparse
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jaxnets import cli
from jaxnets.cache import use_compilation_cache
from jaxnets.errors import UserError
from jaxnets.terminal import shown

if TYPE_CHECKING:
    import numpy as np
    from PIL import Image

    from jaxnets.classifier import Classifier
    from jaxnets.explain.methods import Method

_BATCH = 64  # images that are answered at once


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m jaxnets.explain",
        description="Draw which places of images speak for a class, what a network's filters and features look like, "
        "and which training images an image resembles.",
    )
    cli.add_model_option(parser)
    parser.add_argument("images", nargs="*", type=Path, metavar="IMAGE", help="an image, or a folder of images")
    parser.add_argument("--out", required=True, type=Path, help="folder for the drawings, NAME.png each")
    parser.add_argument(
        "--method",
        default="",
        metavar="M[,M…]",
        help="gradcam (default), gradcam++, layercam, rollout (of transformers), integrated_gradients, smoothgrad, "
        "occlusion, shap, or all",
    )
    parser.add_argument(
        "--label", help="the class to explain, by name or number (default: the most probable, or each that is said)"
    )
    parser.add_argument("--stage", help="whose output is asked: stage1, stage2, … (default: the last)")
    parser.add_argument(
        "--compare",
        action="store_true",
        help="say which of the methods (default: all) explains this model best: by the curves of deleting and "
        "inserting the pixels that they name, averaged over the images",
    )
    parser.add_argument("--filters", action="store_true", help="draw the filters of the first layer: filters.png")
    parser.add_argument("--features", action="store_true", help="draw the feature maps of each image: NAME-STAGE.png")
    parser.add_argument(
        "--nearest", type=int, metavar="K", help="draw the K training images of a run that are most like each image"
    )
    cli.add_checkpoint_options(parser)
    cli.run(parser, _explain)


def _explain(options: argparse.Namespace, _: list[str]) -> int:
    from jaxnets.data.sources.folder import image_files
    from jaxnets.explain.methods import find_methods

    if options.model.lower().endswith(".onnx"):
        raise UserError(
            f"{options.model} is an ONNX graph, which has no gradients and no stages: give the run, or the "
            "weights, that it was exported from"
        )
    names = [name.strip() for name in options.method.split(",") if name.strip()]
    methods, asked = find_methods(names), find_methods([name for name in names if name.lower() != "all"])
    if options.nearest is not None and options.nearest < 1:
        raise UserError(f"--nearest must be at least 1, found {options.nearest}")
    if not options.images and not options.filters:
        raise UserError("there is nothing to explain: give images or folders of them, or --filters")
    if methods and options.stage and not options.features and not any(method.by_stage for method in methods):
        raise UserError(
            f"--stage {options.stage} is for gradcam, gradcam++, layercam and --features, and none of them is asked "
            f"for: leave it out"
        )
    files = image_files(options.images)
    use_compilation_cache()
    from jaxnets.loading import load

    classifier = load(options.model, options.checkpoint, options.weights)
    methods = [method for method in methods if method in asked or classifier.explainer.suits(method)]
    label = None if options.label is None else classifier.find_label(options.label)
    try:
        options.out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"--out {options.out} cannot be made ({error.strerror}): give a folder for the drawings"
        ) from error
    if options.filters:
        _draw_filters(classifier, options.out)
    read, unreadable = _read(classifier, files)
    if options.compare:
        _compare(classifier, methods, read, label, options)
    else:
        _draw(classifier, methods, read, label, options)
    if options.features:
        _draw_features(classifier, read, options)
    if options.nearest:
        _draw_nearest(read, options)
    return 1 if unreadable else 0


Read = list[tuple[Path, str]]  # files that are images, and what their drawings are called


def _read(classifier: "Classifier", files: Sequence[Path]) -> tuple[Read, int]:
    """Returns the files that can be read, and how many cannot."""
    from jaxnets.data.decode import decode
    from jaxnets.data.sources import CorruptImage

    found: Read = []
    unreadable = 0
    for number, file in enumerate(files):
        try:
            decode(file, str(file), classifier.preprocess.white_level)
        except CorruptImage as error:
            print(f"{shown(str(file))}\n  error: {shown(str(error))}")
            unreadable += 1
            continue
        # Two images of one name from different folders both get their drawing.
        taken = file.stem in {other.stem for other in files[:number]}
        found.append((file, f"{file.stem}-{number}" if taken else file.stem))
    return found, unreadable


def _images(classifier: "Classifier", read: Read) -> Iterator[tuple[Path, str, "np.ndarray"]]:
    """Yields the images one at a time: many at their full size would fill the memory."""
    from jaxnets.data.decode import decode
    from jaxnets.preprocess import with_channels

    for file, name in read:
        yield file, name, with_channels(decode(file, str(file), classifier.preprocess.white_level), 3)


def _draw(
    classifier: "Classifier", methods: "list[Method]", read: Read, label: int | None, options: argparse.Namespace
) -> None:
    import numpy as np

    from jaxnets.explain.overlay import sheet

    for file, name, image in _images(classifier, read):
        print(shown(str(file)))
        explained = []
        names: list[str | None] = [each.name for each in methods]
        for method in names or [None]:
            stage = options.stage if method is None or _by_stage(method) else None
            explained += classifier.explain_answer(image, label, stage, method=method)
        target = options.out / f"{name}.png"
        panels = [found.panel(classifier.labels) for found in explained]
        _save(sheet(image, panels, classifier.preprocess.region(*image.shape[:2])), target)
        for found in explained:
            said = shown(classifier.labels[found.label])
            print(f"  {found.probability:7.2%}  {said}{found.remark}  {found.method}  {shown(str(target))}")
            if not np.any(found.heat):
                print("  nothing in this stage speaks for it: the map is empty")


def _by_stage(name: str) -> bool:
    from jaxnets.explain.methods import find_method

    return find_method(name).by_stage


def _compare(
    classifier: "Classifier", methods: "list[Method]", read: Read, label: int | None, options: argparse.Namespace
) -> None:
    import numpy as np
    from rich.table import Table

    from jaxnets import figures, terminal
    from jaxnets.explain.compare import RANDOM, compare, draw
    from jaxnets.explain.methods import METHODS, installed

    if not read:
        raise UserError("--compare needs images: give some, or folders of them")
    methods = methods or [method for method in installed() if classifier.explainer.suits(method)]
    if not classifier.explainer.has_places:
        methods = [method for method in methods if not method.by_stage]
    fitted = np.stack([classifier.preprocess.fit(image) for _, _, image in _images(classifier, read)])
    starts = range(0, len(fitted), _BATCH)
    found = np.concatenate([classifier.engine.probabilities(fitted[start : start + _BATCH]) for start in starts])
    labels = found.argmax(1) if label is None else np.full(len(fitted), label)
    console = terminal.console()
    compared = compare(
        classifier.explainer,
        classifier.activation,
        fitted,
        labels,
        methods,
        stage=options.stage,
        progress=lambda title: console.print(f"{title} …"),
    )
    table = Table("method", "deletion", "insertion", "gain", "beats random on", "behind the best")
    for row in compared.rows():
        error = "" if row["behind_best_error"] is None else f" ± {row['behind_best_error']:.3f}"
        table.add_row(
            METHODS[row["method"]].title if row["method"] in METHODS else row["method"],
            *(f"{row[key]:.3f}" for key in ("deletion", "insertion", "gain")),
            "" if row["method"] == RANDOM else f"{row['beats_random']:.0%}",
            "" if row["method"] == compared.best else f"{row['behind_best']:.3f}{error}",
        )
    console.print(table)
    for target, content in (
        (options.out / "methods.png", figures.png(draw(compared, {name: m.title for name, m in METHODS.items()}))),
        (options.out / "methods.json", (json.dumps(compared.to_json(), indent=2) + "\n").encode()),
    ):
        _write(target, content)
    console.print(
        f"best on these {len(fitted)} images: {compared.best}; areas below the curves, gain = insertion − deletion; "
        f"written to {options.out / 'methods.png'} and methods.json",
        soft_wrap=True,
    )


def _draw_filters(classifier: "Classifier", out: Path) -> None:
    from jaxnets.explain.features import filter_sheet, first_filters

    target = out / "filters.png"
    _save(filter_sheet(first_filters(classifier.model, classifier.variables)), target)
    print(f"the filters of the first layer  {shown(str(target))}")


def _draw_features(classifier: "Classifier", read: Read, options: argparse.Namespace) -> None:
    from jaxnets.explain.features import feature_sheet, find_features

    for _, name, image in _images(classifier, read):
        stage, features = find_features(classifier.features(image), options.stage)
        target = options.out / f"{name}-{stage}.png"
        _save(feature_sheet(features, stage), target)
        print(f"the feature maps of {stage}  {shown(str(target))}")


def _draw_nearest(read: Read, options: argparse.Namespace) -> None:
    from jaxnets.evaluate.nearest import nearest, sheet

    found = nearest(
        options.model,
        [file for file, _ in read],
        options.nearest,
        checkpoint=options.checkpoint,
        weights=options.weights,
        progress=lambda done, total: print(f"  {done:,} of {total:,} training images are embedded"),
    )
    for (file, name), images in zip(read, found, strict=True):
        target = options.out / f"{name}-nearest.png"
        _save(sheet(file, images), target)
        print(shown(str(file)))
        for near in images:
            print(f"  {near.similarity:.3f}  {shown('+'.join(near.labels) or 'none')}  {shown(near.name)}")
        print(f"  {shown(str(target))}")


def _save(image: "Image.Image", target: Path) -> None:
    import io

    content = io.BytesIO()
    image.save(content, "PNG")
    _write(target, content.getvalue())


def _write(target: Path, content: Any) -> None:
    try:
        target.write_bytes(content)
    except OSError as error:
        raise UserError(f"{target} cannot be written ({error}): make room or permission for it") from error


if __name__ == "__main__":
    main()
