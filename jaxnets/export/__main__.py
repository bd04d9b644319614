"""Exports: `python -m jaxnets.export --model MODEL --format onnx --out FILE`."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from jaxnets import command
from jaxnets.errors import UserError

if TYPE_CHECKING:
    from jaxnets.classifier import Classifier

_CALIBRATION = 256  # images that set the ranges of int8, at most


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m jaxnets.export", description="Write a model as a file for other programs, checked first."
    )
    parser.add_argument("--model", required=True, help="a run directory, or the name of a pretrained model")
    parser.add_argument("--format", required=True, choices=("onnx", "stablehlo", "safetensors"))
    parser.add_argument("--out", required=True, type=Path, help="the file to write")
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
    command.add_checkpoint_options(parser)
    command.run(parser, _export)


def _export(options: argparse.Namespace, _: list[str]) -> int:
    if options.format != "onnx" and (options.int8 or options.preprocessing_inside):
        raise UserError(f"--int8 and --preprocessing-inside are for --format onnx, found --format {options.format}")
    from jaxnets.engine.onnx_file import check_writable, require, write_bytes
    from jaxnets.run.resolve import resolve

    check_writable(options.out)
    if options.int8 and options.calibration is None and not resolve(options.model).is_run:
        raise UserError(
            f"int8 needs images to find its ranges, and {options.model} is no run with training data: give a folder "
            f"of some hundred images like those to come with --calibration"
        )
    if options.format == "onnx":
        require("onnx")
        require("onnxruntime")
    command.use_compilation_cache()
    from jaxnets.classifier import load
    from jaxnets.export import check, stablehlo

    classifier = load(options.model, options.checkpoint, options.weights)
    if options.format == "safetensors":
        from jaxnets.export.timm_layout import export_safetensors, timm_name

        content = export_safetensors(classifier)
        said = f"timm's {timm_name(classifier)}"
    elif options.format == "stablehlo":
        content = stablehlo.export_stablehlo(classifier)
        difference = check.check(classifier, stablehlo.stablehlo_logits(content))
        said = f"StableHLO for {', '.join(stablehlo.PLATFORMS)}; off JAX by {difference:.1e} of the largest logit"
    else:
        from jaxnets.export.onnx_export import export_onnx, onnx_logits

        content = export_onnx(classifier, normalised_inside=options.preprocessing_inside)
        difference = check.check(classifier, onnx_logits(content, classifier))
        said = f"ONNX; off JAX by {difference:.1e} of the largest logit"
        if options.int8:
            content, said = _in_int8(content, classifier, options)
    write_bytes(options.out, content)
    print(f"{options.out}: {said}, {len(content) / 2**20:.1f} MiB")
    return 0


def _in_int8(content: bytes, classifier: "Classifier", options: argparse.Namespace) -> tuple[bytes, str]:
    import numpy as np

    from jaxnets.export.calibration import calibration_images, scored_images
    from jaxnets.export.onnx_export import onnx_logits, quantise

    images = calibration_images(options.model, classifier, options.calibration, _CALIBRATION)
    small = quantise(content, classifier, images)
    scored, labels, what = scored_images(options.model, images)

    def predictions(file: bytes) -> np.ndarray:
        logits = onnx_logits(file, classifier)
        return np.concatenate([logits(scored[i : i + 64]).argmax(-1) for i in range(0, len(scored), 64)])

    before, after = predictions(content), predictions(small)
    truth = before if labels is None else labels
    exact, rough = float((before == truth).mean()), float((after == truth).mean())
    print(f"{what} of {len(scored)} images: {exact:.2%} in float32, {rough:.2%} in int8")
    if exact - rough > options.max_loss:
        raise UserError(
            f"int8 loses {exact - rough:.2%}, more than --max-loss {options.max_loss:g}, and was not written: "
            f"calibrate on images that are more like those it will see, or allow more"
        )
    return small, f"ONNX in int8, {what} {rough:.2%}"


if __name__ == "__main__":
    main()
