"""Writes docs/models.md: every registered model's size beside its paper's figures, and its distance from the originals.

    python -m tools.models_table          # writes it
    python -m tools.models_table --print  # prints it

Sizes come from the models; logit differences from tools/parity.json, which `python -m tools.parity` writes.
"""

import argparse
import datetime
import importlib.metadata
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jaxnets
from jaxnets.models.describe import Size, size
from jaxnets.models.registry import MODELS

DOCUMENT = Path(__file__).parent.parent / "docs" / "models.md"
PARITY = Path(__file__).with_name("parity.json")
CIFAR_SIZE = 32  # pixels; the models without preprocessing
UNITS = {"M": 1e6, "B": 1e9}


@dataclass(frozen=True, kw_only=True)
class Paper:
    """What a paper prints of a model: numbers with a unit, as they stand there."""

    source: str
    parameters: str | None = None
    multiply_adds: str | None = None
    notes: tuple[str, ...] = ()  # why the digits differ


SOURCES = {
    "He15": "He et al. 2016a, *Deep residual learning*: table 1 (multiply-adds), table 6 (parameters)",
    "Hu": "Hu et al. 2018, *Squeeze-and-excitation networks*: table 2",
    "Xie": "Xie et al. 2017, *Aggregated residual transformations*: table 1",
    "Zagoruyko": "Zagoruyko & Komodakis 2016, *Wide residual networks*: tables 4, 5 and 8",
    "He19": "He et al. 2019, *Bag of tricks*: table 5",
    "Tan19": "Tan & Le 2019, *EfficientNet*: table 2",
    "Lite": "the README of EfficientNet-Lite in github.com/tensorflow/tpu",
    "Tan21": "Tan & Le 2021, *EfficientNetV2*: table 7",
    "V2": "the README of EfficientNetV2 in github.com/google/automl",
    "Liu": "the README of ConvNeXt in github.com/facebookresearch/ConvNeXt",
    "Woo": "the README of ConvNeXt V2 in github.com/facebookresearch/ConvNeXt-V2",
}

NOTES = {
    "v1.5": "The paper's bottleneck has its stride on the first 1×1 convolution; here it is on the 3×3, as in every "
    "widespread implementation, which costs 0.23 B more. For ResNet-50 that leaves 3.86 B, of which the paper cuts off "
    "the last digit; for SE-ResNet-50 it leaves 3.86 B, beside which the paper counts the gates' pooling and scaling.",
    "shortcut": "The paper leaves the projections of the shortcuts out of its count, or has none (option A); with them "
    "it is 0.02 B more.",
    "cut": "25.58 M, cut off rather than rounded in the paper.",
    "statistics": "9.18 M with the running statistics of the norms, which other rows of the paper don't count.",
    "counting": "The paper does not say how it counted: neither another rounding of the feature maps' sizes nor the "
    "elementwise operations give all of its rows. Ours is the definition above at the paper's resolution.",
    "elementwise": "The README counts about three operations for every output of a convolution (its norm and its "
    "activation) beside the convolutions.",
    "released": "The authors' released code and weights have what stands here in the first column, to within 1 %; "
    "their README says 21.5 M and 8.4 B for S, 54.1 M and 24.7 B for M, 119.5 M and 56.3 B for L.",
    "readme": "28.59 M, cut off rather than rounded in the README.",
    "tiny": "A third of a percent more than the definition above gives, which all other rows of the README agree with.",
}

_B = {
    "b0": Paper(source="Tan19", parameters="5.3M", multiply_adds="0.39B"),
    "b1": Paper(source="Tan19", parameters="7.8M", multiply_adds="0.70B", notes=("counting",)),
    "b2": Paper(source="Tan19", parameters="9.2M", multiply_adds="1.0B", notes=("statistics",)),
    "b3": Paper(source="Tan19", parameters="12M", multiply_adds="1.8B"),
    "b4": Paper(source="Tan19", parameters="19M", multiply_adds="4.2B", notes=("counting",)),
    "b5": Paper(source="Tan19", parameters="30M", multiply_adds="9.9B", notes=("counting",)),
    "b6": Paper(source="Tan19", parameters="43M", multiply_adds="19B"),
    "b7": Paper(source="Tan19", parameters="66M", multiply_adds="37B", notes=("counting",)),
    "lite0": Paper(source="Lite", parameters="4.7M", multiply_adds="407M", notes=("elementwise",)),
    "lite1": Paper(source="Lite", parameters="5.4M", multiply_adds="631M", notes=("elementwise",)),
    "lite2": Paper(source="Lite", parameters="6.1M", multiply_adds="899M", notes=("elementwise",)),
    "lite3": Paper(source="Lite", parameters="8.2M", multiply_adds="1.44B", notes=("elementwise",)),
    "lite4": Paper(source="Lite", parameters="13.0M", multiply_adds="2.64B", notes=("elementwise",)),
}
_V2 = {
    "s": Paper(source="Tan21", parameters="22M", multiply_adds="8.8B", notes=("released",)),
    "m": Paper(source="Tan21", parameters="54M", multiply_adds="24B", notes=("released",)),
    "l": Paper(source="Tan21", parameters="120M", multiply_adds="53B", notes=("released",)),
    "xl": Paper(source="Tan21", parameters="208M", multiply_adds="94B", notes=("released",)),
    "b0": Paper(source="V2", parameters="7.1M", multiply_adds="0.72B"),
    "b1": Paper(source="V2", parameters="8.1M", multiply_adds="1.2B"),
    "b2": Paper(source="V2", parameters="10.1M", multiply_adds="1.7B"),
    "b3": Paper(source="V2", parameters="14.4M", multiply_adds="3.0B"),
}
_CONVNEXT = {
    "convnext_tiny": Paper(source="Liu", parameters="28M", multiply_adds="4.5B", notes=("readme",)),
    "convnext_small": Paper(source="Liu", parameters="50M", multiply_adds="8.7B"),
    "convnext_base": Paper(source="Liu", parameters="89M", multiply_adds="15.4B"),
    "convnext_large": Paper(source="Liu", parameters="198M", multiply_adds="34.4B"),
    "convnextv2_atto": Paper(source="Woo", parameters="3.7M", multiply_adds="0.55B"),
    "convnextv2_femto": Paper(source="Woo", parameters="5.2M", multiply_adds="0.78B"),
    "convnextv2_pico": Paper(source="Woo", parameters="9.1M", multiply_adds="1.37B"),
    "convnextv2_nano": Paper(source="Woo", parameters="15.6M", multiply_adds="2.45B"),
    "convnextv2_tiny": Paper(source="Woo", parameters="28.6M", multiply_adds="4.47B", notes=("tiny",)),
    "convnextv2_base": Paper(source="Woo", parameters="89M", multiply_adds="15.4B"),
    "convnextv2_large": Paper(source="Woo", parameters="198M", multiply_adds="34.4B"),
}
PAPERS = {
    "resnet18": Paper(source="He15", multiply_adds="1.8B"),
    "resnet34": Paper(source="He15", multiply_adds="3.6B", notes=("shortcut",)),
    "resnet50": Paper(source="He15", multiply_adds="3.8B", notes=("v1.5",)),
    "resnet101": Paper(source="He15", multiply_adds="7.6B", notes=("v1.5",)),
    "resnet152": Paper(source="He15", multiply_adds="11.3B", notes=("v1.5",)),
    "resnet50d": Paper(source="He19", parameters="25M", multiply_adds="4.3B", notes=("cut",)),
    "resnext50_32x4d": Paper(source="Xie", parameters="25.0M", multiply_adds="4.2B"),
    "wide_resnet50_2": Paper(source="Zagoruyko", parameters="68.9M"),
    "seresnet50": Paper(source="Hu", multiply_adds="3.87B", notes=("v1.5",)),
    "resnet20_cifar": Paper(source="He15", parameters="0.27M"),
    "resnet32_cifar": Paper(source="He15", parameters="0.46M"),
    "resnet44_cifar": Paper(source="He15", parameters="0.66M"),
    "resnet56_cifar": Paper(source="He15", parameters="0.85M"),
    "resnet110_cifar": Paper(source="He15", parameters="1.7M"),
    "wide_resnet28_10": Paper(source="Zagoruyko", parameters="36.5M"),
    "wide_resnet40_4": Paper(source="Zagoruyko", parameters="8.9M"),
    **_CONVNEXT,
    **{f"{prefix}efficientnet_{name}": paper for prefix in ("", "tf_") for name, paper in _B.items()},
    **{f"{prefix}efficientnetv2_{name}": paper for prefix in ("", "tf_") for name, paper in _V2.items()},
}


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--print", action="store_true", help="print it and write nothing")
    options = arguments.parse_args()
    text = document(json.loads(PARITY.read_text()))
    if options.print:
        print(text, end="")
    else:
        DOCUMENT.write_text(text)


def document(parity: dict[str, Any]) -> str:
    numbers = {note: str(number) for number, note in enumerate(NOTES, 1)}
    libraries = list(dict.fromkeys(case["library"] for case in parity["cases"]))
    rows = [
        "| model | input | parameters | paper | multiply-adds | paper | " + " | ".join(libraries) + " |",
        "|---|---:|---:|---:|---:|---:|" + "---:|" * len(libraries),
    ]
    for name in jaxnets.list_models():
        height, width, own = measured(name)
        paper = PAPERS.get(name)
        cells = [f"`{name}`", f"{height}×{width}", f"{own.parameters:,}"]
        cells += [compared(own.parameters, paper and paper.parameters, paper, numbers)]
        cells += [f"{own.multiply_adds / 1e9:.3f} B"]
        cells += [compared(own.multiply_adds, paper and paper.multiply_adds, paper, numbers)]
        cells += [difference(parity["cases"], library, name) for library in libraries]
        rows.append(f"| {' | '.join(cells)} |")
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in ("jaxnets", "jax", "flax"))
    peers = ", ".join(f"{name} {version}" for name, version in parity["cases"][-1]["versions"].items())
    return "\n".join(
        [
            "# The models, their sizes and their distance from the originals",
            "",
            "Written by `python -m tools.models_table`; don't edit. "
            f"Sizes: {versions}, {datetime.date.today().isoformat()}. "
            f"Logits: {peers}, {parity['date']}, {parity['machine']}.",
            "",
            "Multiply-adds are those of the convolutions, dense layers and attention for one image of the input size: "
            "output places · kernel · input channels / groups · features, shortcuts and the layers of "
            "squeeze-and-excitation included. *Paper* is what the authors print; bold where ours, rounded to as many "
            "digits, is another number, with the reason below the table.",
            "",
            "The last columns are the largest |difference| between our logits and the original's, as a share of the "
            "largest |logit|, with every weight and statistic random (`tools/parity.py`): the worst of all sizes that "
            "were compared. Up to "
            f"{parity['tolerance']:.0e} is accepted, or where the original's own rounding is as large, twice that: two "
            "float32 results lie so far apart. An empty cell was not compared.",
            "",
            *rows,
            "",
            *[f"{numbers[note]}. {text}" for note, text in NOTES.items()],
            "",
            "Papers: " + "; ".join(SOURCES.values()) + ".",
            "",
            "## Every comparison",
            "",
            "*Between images* is how much the original's logits for the two images differ, as a share of the "
            "largest: near 0 the comparison would prove nothing. *Own rounding* is how far the original's float32 "
            "logits lie from its own in float64, where that was measured. *Plain* are those with XLA's own "
            "convolutions in place of the forms for CPUs, which the tests compare with them.",
            "",
            "| original | model | size | difference | own rounding | between images |",
            "|---|---|---:|---:|---:|---:|",
            *[
                f"| {case['case']} | `{case['model']}`{', plain' * case.get('plain', False)} | {size} "
                f"| {found['error']:.1e} | {rounding(found)} | {found['between']:.2f} |"
                for case in parity["cases"]
                for size, found in case["sizes"].items()
            ],
            "",
        ]
    )


def rounding(found: dict[str, float]) -> str:
    return f"{found['rounding']:.1e}" if "rounding" in found else ""


def measured(name: str) -> tuple[int, int, Size]:
    """Returns the pixels of a model's evaluation, and its size there."""
    preprocess = MODELS[name].preprocess
    height, width = (preprocess.height, preprocess.width) if preprocess else (CIFAR_SIZE, CIFAR_SIZE)
    return height, width, size(jaxnets.create_model(name), height, width)


def compared(own: int, printed: str | None, paper: Paper | None, numbers: dict[str, str]) -> str:
    """Returns a paper's figure, marked where our number rounds to another one."""
    if printed is None or paper is None:
        return ""
    figure, unit = printed[:-1], printed[-1]
    decimals = len(figure.partition(".")[2])
    text = f"{figure} {unit}"
    if f"{own / UNITS[unit]:.{decimals}f}" == figure:
        return text
    if not paper.notes:
        raise ValueError(f"{own} is not {printed}, and no note says why")
    return f"**{text}** {' '.join(f'[{numbers[note]}]' for note in paper.notes)}"


def difference(cases: list[dict[str, Any]], library: str, name: str) -> str:
    found = [
        size["error"]
        for case in cases
        if case["library"] == library and case["model"] == name
        for size in case["sizes"].values()
    ]
    return f"{max(found):.1e}" if found else ""


if __name__ == "__main__":
    main()
