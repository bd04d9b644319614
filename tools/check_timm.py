"""Exports models as folders for timm, and compares what timm says of images there with what jaxnets says.

python -m tools.check_timm --timm PYTHON

PYTHON is an interpreter that has torch, timm and Pillow. Images of several sizes go through each side's own
preprocessing. Prints the largest difference in pixels, and max|Δ| / max|logit| on the same pixels; the status is 1
where that is more than 1e-4, or a pixel differs by more than 2.
"""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

import jaxnets
from jaxnets.classifier import Classifier
from jaxnets.export.check import TOLERANCE, jax_logits
from jaxnets.export.timm_layout import export_folder
from jaxnets.models.registry import find_model
from jaxnets.preprocess import Preprocess
from tests.tiny import live
from tools.check_exports import measured

_GREY: dict[str, Any] = {"channels": 1, "mean": (0.31,), "std": (0.29,)}
_COLOURS: dict[str, Any] = {"channels": 3, "mean": (0.4, 0.5, 0.6), "std": (0.2, 0.3, 0.25)}
# Name, classes, preprocessing (None: the name's own) and changed fields.
_CASES: tuple[tuple[str, int, dict[str, Any] | None, dict[str, Any]], ...] = (
    ("resnet18", 10, {"height": 32, "width": 32, **_GREY}, {}),
    ("resnet18", 3, {"height": 48, "width": 64, **_COLOURS, "crop_fraction": 0.9, "interpolation": "bicubic"}, {}),
    ("resnet50d", 7, {"height": 40, "width": 40, **_COLOURS, "crop_fraction": 40 / 53, "interpolation": "lanczos"}, {}),
    ("resnetv2_50", 4, {"height": 64, "width": 64, **_COLOURS, "fitting": "squeeze", "crop_fraction": 0.95}, {}),
    ("seresnet50", 4, {"height": 40, "width": 40, **_GREY, "crop_fraction": 0.7547169}, {}),
    ("wide_resnet50_2", 4, {"height": 40, "width": 40, **_GREY, "interpolation": "nearest"}, {}),
    ("resnext50_32x4d", 4, {"height": 40, "width": 40, **_GREY, "crop_fraction": 0.875}, {}),
    ("efficientnet_b0", 6, None, {}),
    ("tf_efficientnet_b0", 6, {"height": 65, "width": 65, **_GREY}, {}),
    ("efficientnet_b0", 6, None, {"norm_epsilon": 1e-3}),
    ("tf_efficientnet_lite0", 1000, None, {}),
    ("efficientnetv2_b0", 5, {"height": 65, "width": 65, **_GREY}, {}),
    ("tf_efficientnetv2_b1", 5, None, {}),
)

_THEIRS = """
import sys
from pathlib import Path
import numpy as np, timm, torch
from PIL import Image
from timm.data import create_transform, resolve_model_data_config
for folder in map(Path, sys.argv[2:]):
    model = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    config = resolve_model_data_config(model)
    transform = create_transform(**config, is_training=False)
    mode = "L" if config["input_size"][0] == 1 else "RGB"
    files = sorted(Path(sys.argv[1]).glob("*.png"))
    mean, std = (np.array(config[key]) for key in ("mean", "std"))
    x = np.stack([transform(Image.open(file).convert(mode)).numpy() for file in files]).transpose(0, 2, 3, 1)
    pixels = np.rint((x * std + mean) * 255)
    ours = (np.load(folder / "pixels.npy") / 255 - mean) / std
    with torch.no_grad():
        logits = model(torch.tensor(ours.transpose(0, 3, 1, 2).astype(np.float32))).numpy()
    np.savez(folder / "theirs.npz", pixels=pixels, logits=logits, labels=model.pretrained_cfg["label_names"])
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--timm", required=True, help="an interpreter that has torch and timm")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        images = _images()
        for i, image in enumerate(images):
            Image.fromarray(image).save(root / f"{i}.png")
        exported = [_export(root / str(i), images, *case) for i, case in enumerate(_CASES)]
        folders = [str(root / str(i)) for i in range(len(_CASES))]
        subprocess.run([options.timm, "-W", "ignore", "-c", _THEIRS, str(root), *folders], check=True)
        failed = 0
        for folder, (name, said, logits, labels) in zip(folders, exported, strict=True):
            theirs = np.load(Path(folder) / "theirs.npz")
            pixels = np.abs(theirs["pixels"] - np.load(Path(folder) / "pixels.npy")).max()
            error = np.abs(theirs["logits"] - logits).max() / np.abs(logits).max()
            good = error <= TOLERANCE and pixels <= 2 and tuple(theirs["labels"]) == labels
            failed += not good
            print(f"{name:22} as {said:22} pixels {pixels:.0f}, logits {error:.1e}{'' if good else '  FAILED'}")
    sys.exit(f"{failed} failed" if failed else 0)


def _images() -> list[np.ndarray]:
    from sklearn.datasets import load_sample_images

    temple, flower = load_sample_images().images
    return [temple, flower[:201, :333], temple[:400, 100:260], flower[::10, ::10], temple[:37, :52], flower[:224, :224]]


def _export(
    folder: Path, images: list[np.ndarray], name: str, classes: int, seen: dict[str, Any] | None, fields: dict[str, Any]
) -> tuple[str, str, np.ndarray, tuple[str, ...]]:
    preprocess = find_model(name).preprocess if seen is None else Preprocess(**seen)
    assert preprocess is not None
    model: Any = jaxnets.create_model(name, num_classes=classes, preprocess=preprocess, **fields)
    pixels = np.stack([preprocess.fit(image) for image in images])
    classifier = Classifier(
        name=name,
        model=model,
        variables=measured(model, live(model, preprocess), preprocess.normalise(pixels, np.float32)),
        preprocess=preprocess,
        labels=tuple(f"label {i}" for i in range(classes)),
        step=None,
    )
    folder.mkdir()
    _, said = export_folder(classifier, folder / "model.safetensors")
    np.save(folder / "pixels.npy", pixels)
    return name, said.split(",")[0].removeprefix("timm's "), jax_logits(classifier)(pixels), classifier.labels


if __name__ == "__main__":
    main()
