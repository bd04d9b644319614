"""What goes from the host to a step."""

import flax.struct
import numpy as np
from jaxtyping import Array, Bool, Float32, Int32, UInt8


@flax.struct.dataclass
class Batch:
    """Examples as they leave the host; normalisation and augmentation happen on the device.

    Training batches are full, and their images are canvases: whole, squeezed to one size. In evaluation images are
    fitted to the model, the short last batch is padded, and `mask` is False on the padding.
    """

    image: UInt8[Array, "b h w c"]
    label: Int32[Array, " b"] | Float32[Array, "b classes"]  # the class; or 1 for each class that it has, 0 else
    mask: Bool[Array, " b"]
    index: Int32[Array, " b"]  # of each example in its split, and
    epoch: Int32[Array, " b"]  # the pass it is drawn in: together with the seed they determine its augmentation
    aspect: Float32[Array, " b"]  # width / height of the original


def batch_labels(
    labels: Int32[np.ndarray, " b"] | UInt8[np.ndarray, "b classes"],
) -> Int32[np.ndarray, " b"] | Float32[np.ndarray, "b classes"]:
    """Returns labels of examples (`Examples.labels`) as a batch holds them."""
    return labels.astype(np.float32 if labels.ndim == 2 else np.int32)
