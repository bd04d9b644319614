"""Logits of the original implementations, which `tools/make_goldens.py` stored, against ours with the same weights."""

import json
from functools import cache
from pathlib import Path

import jax
import numpy as np
import pytest
from safetensors.numpy import save_file

import jaxnets
from jaxnets.models.conv import plain_convolutions
from jaxnets.models.registry import find_family
from jaxnets.pretrained.layouts import slots
from tests.pretrained.drawn import checksum, draw, draw_images

CASES = json.loads(Path(__file__).with_name("goldens.json").read_text())["cases"]
GOLDENS = {case["original"]: case for case in CASES}
TOLERANCE = 1e-4  # of max|logit|
LIVELY = 0.1  # likewise: how much the logits of two images differ, or the comparison would prove nothing


@cache
def shapes_of(original: str) -> dict[str, tuple[int, ...]]:
    """The keys and shapes that our layout asks for, with PyTorch's counters."""
    case, library = GOLDENS[original], original.split("/")[0]
    family = find_family(case["model"])
    name = library.replace("efficientnet-lite", "efficientnet")
    if family.network.__name__ == "ResNet" and library == "torchvision":
        name = "timm"  # the same keys
    model = jaxnets.create_model(case["model"], num_classes=len(case["logits"][0]), **case.get("fields", {}))
    for layout in family.layouts:
        if layout.name != name:
            continue
        shapes = {key: place.foreign_shape for place in slots(layout, model, 3) for key in place.keys}
        counters = [key for key in shapes if key.endswith("running_mean")]
        shapes |= {key.replace("running_mean", "num_batches_tracked"): () for key in counters}
        if checksum(shapes.items()) == case["keys"]:  # of several versions of a layout, the one of the original
            break
    return shapes


def load(original: str, folder: Path, **fields):
    case, file = GOLDENS[original], folder / "weights.safetensors"
    save_file({key: draw(key, shape, case["gain"]) for key, shape in shapes_of(original).items()}, file)
    return jaxnets.load_pretrained(case["model"], file, **fields)


def logits_of(original: str, model, variables) -> np.ndarray:
    """Compiling takes longest, so convolutions get their plain form, which test_conv.py compares with the others, and
    the compiler optimises nothing."""
    images = draw_images(*GOLDENS[original]["size"])
    with plain_convolutions():
        lowered = jax.jit(model.apply).lower(variables, images)
    return np.asarray(lowered.compile(compiler_options={"xla_backend_optimization_level": 0})(variables, images))


def error_of(logits: np.ndarray, original: str) -> float:
    expected = np.asarray(GOLDENS[original]["logits"], np.float32)
    return float(np.abs(logits - expected).max() / np.abs(expected).max())


@pytest.mark.parametrize("original", GOLDENS)
def test_our_layout_has_the_keys_and_shapes_of_the_original(original):
    assert checksum(shapes_of(original).items()) == GOLDENS[original]["keys"]


@pytest.mark.parametrize("original", GOLDENS)
def test_logits_are_those_of_the_original_implementation(original, tmp_path):
    assert error_of(logits_of(original, *load(original, tmp_path)), original) <= TOLERANCE


@pytest.mark.parametrize("original", GOLDENS)
def test_the_logits_that_are_compared_depend_on_the_image(original):
    fine, coarse = np.asarray(GOLDENS[original]["logits"])
    assert error_of(np.stack([coarse, fine]), original) >= LIVELY


@pytest.mark.parametrize("convention", [{"padding": "same"}, {"norm_epsilon": 1e-3}], ids=str)
def test_another_convention_would_be_noticed(convention, tmp_path):
    original = "timm/efficientnet_b0"
    assert error_of(logits_of(original, *load(original, tmp_path, **convention)), original) > 10 * TOLERANCE
