"""An exported model beside the one it was made of, on real images."""

from collections.abc import Callable

import jax
import numpy as np
from jaxtyping import Float32, UInt8

from jaxnets.classifier import Classifier
from jaxnets.errors import UserError
from jaxnets.models.family import Network
from jaxnets.models.forward import forward

TOLERANCE = 1e-4  # of the largest logit
TOLERANCES = {"float32": TOLERANCE, "float16": 1e-2, "bfloat16": 5e-2}  # of exports in a precision

Logits = Callable[[UInt8[np.ndarray, "b h w c"]], Float32[np.ndarray, "b classes"]]


def sample_images(classifier: Classifier) -> UInt8[np.ndarray, "b h w c"]:
    """Returns scikit-learn's two photographs, whole and in quarters, as the model sees them."""
    from sklearn.datasets import load_sample_images

    images = []
    for photograph in load_sample_images().images:
        rows, columns = photograph.shape[0] // 2, photograph.shape[1] // 2
        images += [photograph, photograph[:rows, :columns], photograph[rows:, columns:]]
    return np.stack([classifier.preprocess.fit(image) for image in images])


def jax_logits(classifier: Classifier) -> Logits:
    """Returns what the model itself says, in float32; the temperature of a calibrated one has divided it."""
    model = classifier.model.clone(dtype=np.float32)
    # The weights are an argument: XLA would take minutes to compute ahead what follows from constants.
    logits = jax.jit(lambda variables, images: forward(model, classifier.preprocess, variables, images))
    divisor = np.float32(classifier.temperature or 1)
    return lambda images: np.asarray(logits(classifier.variables, images)) / divisor


def largest_difference(a: Float32[np.ndarray, "b classes"], b: Float32[np.ndarray, "b classes"]) -> float:
    """Returns max|a − b| / max|a|."""
    return float(np.abs(a - b).max() / np.abs(a).max())


def is_quantised(classifier: Classifier) -> bool:
    """Tells whether a model computes as in 8 bits already (`jaxnets.models.quantised`)."""
    return isinstance(classifier.model, Network) and classifier.model.quantised


def check(classifier: Classifier, exported: Logits, tolerance: float = TOLERANCE) -> float:
    """Returns the largest difference between an export's logits and JAX's, which are float32, on real images.

    Raises:
        UserError: if it is more than the tolerance, or of a model that computes as in 8 bits more than a 255th of the
            logits' range; nothing should be written then.
    """
    images = sample_images(classifier)
    expected = jax_logits(classifier)(images)
    difference = largest_difference(expected, exported(images))
    if is_quantised(classifier):  # where a sum lies at a half, activations are a step apart
        tolerance = float(np.ptp(expected) / np.abs(expected).max()) / 255
    if not difference <= tolerance:
        raise UserError(
            f"the export differs from the model by {difference:.1e} of the largest logit, more than {tolerance:.0e}, "
            f"and was not written: please report this with the model's name ({classifier.name})"
        )
    return difference
