"""Exports: `python -m jaxnets.export --model MODEL --format onnx --out FILE`, or `--push-to OWNER/REPO` to the Hub."""

import argparse
import logging
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from jaxnets import cli
from jaxnets.cache import use_compilation_cache
from jaxnets.errors import UserError

if TYPE_CHECKING:
    from jaxnets.classifier import Classifier
    from jaxnets.engine.precision import GraphDtype
    from jaxnets.export.calibration import Calibration
    from jaxnets.export.layers import Kept
    from jaxnets.export.web.runtime import Runtime

_log = logging.getLogger("jaxnets.export")

_ONNX = ("onnx", "web", "triton")  # formats that are made of the ONNX file


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m jaxnets.export",
        description="Write a model as a file for other programs, checked first; or put a run on the Hugging Face Hub.",
    )
    cli.add_model_option(parser)
    parser.add_argument("--format", choices=("onnx", "stablehlo", "safetensors", "web", "triton"))
    parser.add_argument(
        "--out",
        type=Path,
        help="the file to write (web: FILE.html, a page that needs no server); of safetensors a folder, or a file in "
        "one, for timm's config.json lies beside it; of triton a folder, its model repository",
    )
    parser.add_argument(
        "--preprocessing-inside",
        action="store_true",
        help="onnx, triton: take uint8 [b, h, w, c] in place of normalised float32 [b, c, h, w]",
    )
    parser.add_argument(
        "--dtype",
        choices=("float32", "float16", "bfloat16"),
        help="onnx, triton: of the weights, and with float16 of what is computed (default float32)",
    )
    parser.add_argument("--int8", action="store_true", help="onnx, web, triton: 8 bits, calibrated on real images")
    parser.add_argument(
        "--calibration", type=Path, help="int8: a folder of images (default: the run's own training data)"
    )
    parser.add_argument(
        "--max-loss", type=float, default=0.01, help="int8: accuracy that may be lost at most (default 0.01, a point)"
    )
    parser.add_argument(
        "--layers", action="store_true", help="int8: try each layer alone in 8 bits, and show those that cost most"
    )
    parser.add_argument(
        "--keep-float",
        action="append",
        metavar="LAYER[,LAYER…] | N",
        help="int8: layers that stay in float32, by their names (a block's name means all of it); or so many, those "
        "that cost most by --layers",
    )
    parser.add_argument(
        "--register",
        metavar="NAME[@ALIAS]",
        help="onnx, of a run: also make it a version of this name in the model registry of the run's MLflow",
    )
    parser.add_argument(
        "--web-runtime", type=Path, metavar="FILE.tgz", help="web: npm's onnxruntime-web (default: downloaded once)"
    )
    hub = parser.add_argument_group("the Hugging Face Hub", "in place of --format and --out; the model is a run")
    hub.add_argument(
        "--push-to",
        metavar="OWNER/REPO",
        help="upload model card, weights (ours, and timm's), preprocessing and labels",
    )
    hub.add_argument("--private", action="store_true", help="make the repository private")
    hub.add_argument("--update", action="store_true", help="the repository may be there already, and gets a new commit")
    hub.add_argument("--dry-run", type=Path, metavar="DIR", help="write into this folder what would be uploaded")
    cli.add_checkpoint_options(parser)
    cli.run(parser, _export)


def _export(options: argparse.Namespace, _: list[str]) -> int:
    if options.push_to is not None:
        return _push(options)
    if options.private or options.update or options.dry_run is not None:
        raise UserError("--private, --update and --dry-run are for --push-to OWNER/REPO: add it, or leave them out")
    if options.format is None or options.out is None:
        raise UserError(
            "give --format (onnx, stablehlo, safetensors, web or triton) and --out FILE, or --push-to OWNER/REPO for "
            "the Hub"
        )
    if options.format not in _ONNX and options.int8:
        raise UserError(f"--int8 is for --format onnx, web and triton, found --format {options.format}")
    if options.format not in ("onnx", "triton") and options.preprocessing_inside:
        raise UserError(f"--preprocessing-inside is for --format onnx and triton, found --format {options.format}")
    if options.format != "web" and options.web_runtime is not None:
        raise UserError(f"--web-runtime is for --format web, found --format {options.format}")
    if options.dtype is not None and options.format not in ("onnx", "triton"):
        smaller = "; --int8 makes a page smaller" if options.format == "web" else ""
        raise UserError(f"--dtype is for --format onnx and triton, found --format {options.format}{smaller}")
    if options.dtype not in (None, "float32") and options.int8:
        raise UserError(
            f"--dtype {options.dtype} and --int8 are two precisions, and what int8 keeps is float32: leave one out"
        )
    if options.calibration is not None and not options.int8:
        raise UserError("--calibration gives int8 its images: add --int8, or leave it out")
    if not options.int8 and (options.layers or options.keep_float is not None):
        given = "--layers" if options.layers else "--keep-float"
        raise UserError(f"{given} is of int8, which takes layers to 8 bits: add --int8, or leave it out")
    kept = None
    if options.keep_float is not None:
        from jaxnets.export.layers import read_kept

        kept = read_kept(options.keep_float)
    if options.register is not None and options.format != "onnx":
        raise UserError(f"--register is for --format onnx, found --format {options.format}")
    from jaxnets.engine.onnx_file import check_writable, require

    if options.format in _ONNX:
        require("onnx")
        require("onnxruntime")
    if options.format == "triton":
        from jaxnets.export.triton import check_repository
        from jaxnets.run.resolve import resolve

        check_repository(options.out, name := resolve(options.model).name)
        options.out /= name
    if options.format == "safetensors" and options.out.suffix != ".safetensors":
        from jaxnets.export.timm_layout import WEIGHTS

        options.out /= WEIGHTS
    check_writable(options.out)
    if options.int8 and options.calibration is None:
        from jaxnets.export.calibration import no_images, run_of

        if run_of(options.model) is None:
            raise no_images(options.model)
    asked = None
    if options.register is not None:
        from jaxnets.export.register import parse_registration

        asked = parse_registration(options.register, options.model)
    runtime = None
    if options.format == "web":
        from jaxnets.export.web.runtime import open_runtime

        runtime = open_runtime(options.web_runtime)
    use_compilation_cache()
    from jaxnets.export.check import is_quantised
    from jaxnets.loading import load

    classifier = load(options.model, options.checkpoint, options.weights)
    if is_quantised(classifier) and (options.int8 or options.dtype not in (None, "float32")):
        given = "--int8" if options.int8 else f"--dtype {options.dtype}"
        raise UserError(f"{options.model} computes in 8 bits as it is: leave {given} out")
    if options.format == "safetensors":
        from jaxnets.export.timm_layout import export_folder

        size, said = export_folder(classifier, options.out)
    else:
        size, said = (
            _stablehlo(classifier, options)
            if options.format == "stablehlo"
            else _onnx(classifier, options, runtime, kept)
        )
    print(f"{options.out}: {said}, {size / 2**20:.1f} MiB")
    if asked is not None:
        from jaxnets.export.register import register

        print(register(options.out.read_bytes(), classifier, asked, said))
    return 0


def _push(options: argparse.Namespace) -> int:
    """Puts a run on the Hub, or writes the folder that would be."""
    file_options = ("format", "out", "dtype", "calibration", "keep_float", "register")
    names = [name for name in file_options if getattr(options, name) is not None]
    names += [name for name in ("int8", "layers", "preprocessing_inside") if getattr(options, name)]
    given = [f"--{name.replace('_', '-')}" for name in names]
    if given:
        raise UserError(
            f"{', '.join(given)} are for a file, and --push-to uploads a folder: leave one or the other out"
        )
    from jaxnets.export.push import check_token, parse_repository, push

    repository = parse_repository(options.push_to)
    from jaxnets.export.hub_folder import check_folder, check_opened, hub_folder, open_pushed

    open_pushed(options.model)
    if options.dry_run is None:
        check_token()
    else:
        check_folder(options.dry_run)
    use_compilation_cache()
    made, classifier = hub_folder(options.model, repository, checkpoint=options.checkpoint, weights=options.weights)
    for name, content in made.files.items():
        print(f"{len(content):>12,}  {name}")
    if options.dry_run is not None:
        made.write(options.dry_run)
        check_opened(options.dry_run, classifier)
        print(f"{options.dry_run}: {made.title}; nothing was uploaded. jaxnets.load({str(options.dry_run)!r}) opens it")
        return 0
    with tempfile.TemporaryDirectory(prefix="jaxnets-") as folder:
        made.write(Path(folder))
        check_opened(Path(folder), classifier)
        page = push(
            Path(folder), repository, private=options.private, update=options.update, message=f"jaxnets: {made.title}"
        )
    print(f"{page}: {made.title}; jaxnets.load('hf:{repository}') opens it")
    return 0


def _stablehlo(classifier: "Classifier", options: argparse.Namespace) -> tuple[int, str]:
    from jaxnets.engine.onnx_file import write_bytes
    from jaxnets.export import check, stablehlo

    content = stablehlo.export_stablehlo(classifier)
    difference = check.check(classifier, stablehlo.stablehlo_logits(content))
    write_bytes(options.out, content)
    return len(
        content
    ), f"StableHLO for {', '.join(stablehlo.PLATFORMS)}; off JAX by {difference:.1e} of the largest logit"


def _onnx(
    classifier: "Classifier", options: argparse.Namespace, runtime: "Runtime | None", kept: "Kept | None"
) -> tuple[int, str]:
    """Writes an ONNX file, or what holds it: with a runtime a page, of Triton a folder."""
    from jaxnets.engine.onnx_file import write_bytes
    from jaxnets.export import check
    from jaxnets.export.calibration import open_calibration
    from jaxnets.export.onnx_export import export_onnx, onnx_logits
    from jaxnets.export.triton import write_repository

    calibration = open_calibration(options.model, classifier, options.calibration) if options.int8 else None
    dtype: GraphDtype = options.dtype or "float32"
    inside = runtime is not None or options.preprocessing_inside
    content = export_onnx(classifier, normalised_inside=inside, dtype=dtype)
    difference = check.check(classifier, onnx_logits(content, classifier), check.TOLERANCES[dtype])
    precision = "" if dtype == "float32" else f" in {dtype}"
    said = f"ONNX{precision}; off JAX by {difference:.1e} of the largest logit"
    if calibration is not None:
        content, said = _in_int8(content, classifier, calibration, kept, options)
    if runtime is not None:
        from jaxnets.export.web.page import page

        content, said = page(content, runtime), f"a page with {said}"
    if options.format == "triton":
        return write_repository(options.out.parent, content, options.out.name), f"Triton's, with {said}"
    write_bytes(options.out, content)
    return len(content), said


def _in_int8(
    content: bytes,
    classifier: "Classifier",
    calibration: "Calibration",
    kept: "Kept | None",
    options: argparse.Namespace,
) -> tuple[bytes, str]:
    from jaxnets.export import layers
    from jaxnets.export.calibration import plural
    from jaxnets.export.int8 import calibrate, measured, quantisable, quantise
    from jaxnets.export.onnx_export import onnx_logits

    graph, kept = quantisable(content), kept or layers.Kept()
    wanted = layers.layers_of(graph, kept)
    count = len(calibration.images)
    print(f"calibrating on {count} {plural('image', count)} of {calibration.source}")
    ranges = calibrate(graph, classifier, calibration.images)
    before = onnx_logits(content, classifier)
    if options.layers or kept.most:
        seen = layers.sample(calibration)
        found = layers.costs(graph, ranges, classifier, before, seen)
        print(layers.table(found, len(seen)))
        wanted = wanted or [cost.layer for cost in found[: kept.most]]
    small = quantise(graph, ranges, kept=layers.nodes_of(graph, kept, wanted))
    exact, rough = measured(
        calibration, classifier.activation, before, onnx_logits(small, classifier), classifier.thresholds
    )
    outcome = f"{calibration.measure}: {rough:.2%}"
    print(
        outcome if calibration.labels is None else f"{calibration.measure}: {exact:.2%} in float32, {rough:.2%} in int8"
    )
    for doubt in calibration.doubts(before, options.max_loss):
        _log.warning("%s", doubt)
    if exact - rough > options.max_loss:
        raise UserError(
            f"int8 loses {exact - rough:.2%}, more than --max-loss {options.max_loss:g}, and was not written: "
            f"calibrate on images that are more like those it will see, keep the layers that cost most in float32 "
            f"(--keep-float 3), or allow more"
        )
    if wanted:
        print(f"in float32: {', '.join(wanted)}")
        return small, f"ONNX in int8 but {len(wanted)} of {len(graph.layers)} layers, {outcome}"
    return small, f"ONNX in int8, {outcome}"


if __name__ == "__main__":
    main()
