"""Exports every registered model at its own size to ONNX and compares it with JAX, weights and statistics random.

python -m tools.check_exports [--models resnet50 efficientnet_b0 …]

Prints max|Δ| / max|logit| on four images of noise and how far the images' logits lie apart; the status is 1 if
a difference is more than 1e-4 or a network says the same of all. Models of more than --largest multiply-adds are left
out, since XLA and the comparison take minutes for each.
"""

import argparse
import sys
import time
from typing import Any

import jax
import numpy as np

import jaxnets
from jaxnets.classifier import Classifier
from jaxnets.export.check import TOLERANCE, jax_logits, largest_difference
from jaxnets.export.onnx_export import export_onnx, onnx_logits
from jaxnets.models.describe import multiply_adds
from jaxnets.models.registry import find_model
from jaxnets.preprocess import IMAGENET_MEAN, IMAGENET_STD, Preprocess
from tests.tiny import live

LIVELY = 0.01  # of the largest logit: how much the logits of two images differ at least


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="*", default=jaxnets.list_models())
    parser.add_argument("--largest", type=float, default=6e9, help="multiply-adds (default 6e9)")
    options = parser.parse_args()
    failed = []
    for name in options.models:
        model = jaxnets.create_model(name)
        preprocess = find_model(name).preprocess or Preprocess(
            height=32, width=32, channels=3, mean=IMAGENET_MEAN, std=IMAGENET_STD
        )
        if multiply_adds(model, preprocess.height, preprocess.width) > options.largest:
            print(f"{name:24} left out: it is large", flush=True)
            continue
        start = time.monotonic()
        labels = tuple(map(str, range(model.num_classes)))
        size = (4, preprocess.height, preprocess.width, preprocess.channels)
        images = np.random.default_rng(0).integers(0, 256, size, np.uint8)
        images[2:] //= 4
        variables = measured(model, live(model, preprocess), preprocess.normalise(images, np.float32))
        classifier = Classifier(
            name=name,
            model=model,
            variables=variables,
            preprocess=preprocess,
            labels=labels,
            step=None,
        )
        expected = jax_logits(classifier)(images)
        error = largest_difference(
            expected, onnx_logits(export_onnx(classifier, normalised_inside=False), classifier)(images)
        )
        between = float(np.abs(expected[0] - expected[2]).max() / np.abs(expected).max())
        good = error <= TOLERANCE and between >= LIVELY
        seconds = time.monotonic() - start
        print(f"{name:24} {error:9.1e} {between:6.2f} {seconds:6.0f} s{'' if good else '  FAILED'}", flush=True)
        failed += [] if good else [name]
        jax.clear_caches()
    sys.exit(f"{len(failed)} failed: {', '.join(failed)}" if failed else 0)


def measured(model: Any, variables: Any, x: jax.Array) -> Any:
    """Returns the variables with the running statistics of images, the variances bent by 0.5 to 2.

    With statistics that are none a deep network may amplify float32's rounding beyond the tolerance.
    """
    learning = model.clone(norm_decay=1e-9, dropout=0.0, stochastic_depth=0.0)
    _, found = jax.jit(lambda variables, x: learning.apply(variables, x, train=True, mutable=["batch_stats"]))(
        variables, x
    )
    random = np.random.default_rng(1)

    def bent(path: Any, leaf: jax.Array) -> np.ndarray:
        factor = random.uniform(0.5, 2.0, leaf.shape) if path[-1].key == "var" else 1.0
        return (np.asarray(leaf) * factor).astype(np.float32)

    return {**variables, "batch_stats": jax.tree_util.tree_map_with_path(bent, found["batch_stats"])}


if __name__ == "__main__":
    main()
