"""Exports: `python -m jaxnets.export --model MODEL --format onnx --out FILE`."""

import argparse
import logging
from pathlib import Path
from typing import TYPE_CHECKING

from jaxnets import cli
from jaxnets.cache import use_compilation_cache
from jaxnets.errors import UserError

if TYPE_CHECKING:
    from jaxnets.classifier import Classifier
    from jaxnets.export.calibration import Calibration

_log = logging.getLogger("jaxnets.export")


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m jaxnets.export", description="Write a model as a file for other programs, checked first."
    )
    cli.add_model_option(parser)
    parser.add_argument("--format", required=True, choices=("onnx", "stablehlo", "safetensors"))
    parser.add_argument(
        "--out",
        required=True,
        type=Path,
        help="the file to write; of safetensors a folder, or a file in one, for timm's config.json lies beside it",
    )
    parser.add_argument(
        "--preprocessing-inside",
        action="store_true",
        help="onnx: take uint8 [b, h, w, c] in place of normalised float32 [b, c, h, w]",
    )
    parser.add_argument("--int8", action="store_true", help="onnx: 8 bits, calibrated on real images")
    parser.add_argument(
        "--calibration", type=Path, help="int8: a folder of images (default: the run's own training data)"
    )
    parser.add_argument(
        "--max-loss", type=float, default=0.01, help="int8: accuracy that may be lost at most (default 0.01, a point)"
    )
    cli.add_checkpoint_options(parser)
    cli.run(parser, _export)


def _export(options: argparse.Namespace, _: list[str]) -> int:
    if options.format != "onnx" and (options.int8 or options.preprocessing_inside):
        raise UserError(f"--int8 and --preprocessing-inside are for --format onnx, found --format {options.format}")
    if options.calibration is not None and not options.int8:
        raise UserError("--calibration gives int8 its images: add --int8, or leave it out")
    from jaxnets.engine.onnx_file import check_writable, require

    if options.format == "safetensors" and options.out.suffix != ".safetensors":
        from jaxnets.export.timm_layout import WEIGHTS

        options.out /= WEIGHTS
    check_writable(options.out)
    if options.int8 and options.calibration is None:
        from jaxnets.export.calibration import no_images, run_of

        if run_of(options.model) is None:
            raise no_images(options.model)
    if options.format == "onnx":
        require("onnx")
        require("onnxruntime")
    use_compilation_cache()
    from jaxnets.classifier import load

    classifier = load(options.model, options.checkpoint, options.weights)
    if options.format == "safetensors":
        from jaxnets.export.timm_layout import export_folder

        size, said = export_folder(classifier, options.out)
    else:
        size, said = (_onnx if options.format == "onnx" else _stablehlo)(classifier, options)
    print(f"{options.out}: {said}, {size / 2**20:.1f} MiB")
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


def _onnx(classifier: "Classifier", options: argparse.Namespace) -> tuple[int, str]:
    from jaxnets.engine.onnx_file import write_bytes
    from jaxnets.export import check
    from jaxnets.export.calibration import open_calibration
    from jaxnets.export.onnx_export import export_onnx, onnx_logits

    calibration = open_calibration(options.model, classifier, options.calibration) if options.int8 else None
    content = export_onnx(classifier, normalised_inside=options.preprocessing_inside)
    difference = check.check(classifier, onnx_logits(content, classifier))
    said = f"ONNX; off JAX by {difference:.1e} of the largest logit"
    if calibration is not None:
        content, said = _in_int8(content, classifier, calibration, options.max_loss)
    write_bytes(options.out, content)
    return len(content), said


def _in_int8(
    content: bytes, classifier: "Classifier", calibration: "Calibration", max_loss: float
) -> tuple[bytes, str]:
    from jaxnets.export.calibration import plural
    from jaxnets.export.int8 import measured, quantise
    from jaxnets.export.onnx_export import onnx_logits

    count = len(calibration.images)
    print(f"calibrating on {count} {plural('image', count)} of {calibration.source}")
    before = onnx_logits(content, classifier)
    small = quantise(content, classifier, calibration.images)
    exact, rough = measured(
        calibration, classifier.activation, before, onnx_logits(small, classifier), classifier.thresholds
    )
    outcome = f"{calibration.measure}: {rough:.2%}"
    print(
        outcome if calibration.labels is None else f"{calibration.measure}: {exact:.2%} in float32, {rough:.2%} in int8"
    )
    for doubt in calibration.doubts(before, max_loss):
        _log.warning("%s", doubt)
    if exact - rough > max_loss:
        raise UserError(
            f"int8 loses {exact - rough:.2%}, more than --max-loss {max_loss:g}, and was not written: "
            f"calibrate on images that are more like those it will see, or allow more"
        )
    return small, f"ONNX in int8, {outcome}"


if __name__ == "__main__":
    main()
