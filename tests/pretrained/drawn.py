"""Weights and images that NumPy draws from their names alone, so that two programs hold the same without a file.

`tools/make_goldens.py` loads them into the original implementations, `test_parity.py` into ours.
"""

import hashlib
import math
from collections.abc import Iterable
from zlib import crc32

import numpy as np

_GATES = ("conv_expand", "fc2", "_se_expand", "squeeze_excite.expand")  # ends of the layers that make gates
_VARIANCE = 0.1  # of what a convolution makes of a signal; small, so that a norm's epsilon shows beside it


def draw(key: str, shape: tuple[int, ...], gain: float) -> np.ndarray:
    """Returns the array under a PyTorch state dict's `key`.

    Gates are mostly open. `gain`, by which each convolution makes a signal's variance larger, is to be chosen for the
    architecture, between where the signal dies out and where it explodes: the logits then depend on the image, and
    on every array.
    """
    layer, _, leaf = key.rpartition(".")
    if leaf == "num_batches_tracked":
        return np.zeros(shape, np.int64)
    random = np.random.Generator(np.random.PCG64(crc32(key.encode())))

    def uniform(low: float, high: float) -> np.ndarray:
        return low + (high - low) * random.random(shape, np.float32)

    if leaf == "running_var":
        return uniform(0.5 * _VARIANCE, 2 * _VARIANCE)
    if leaf == "running_mean":
        return uniform(-0.15, 0.15) * np.float32(math.sqrt(_VARIANCE))
    if leaf == "bias":
        gate = layer.endswith(_GATES) and not layer.endswith("mlp.fc2")
        return uniform(1, 3) if gate else uniform(-0.15, 0.15)
    if len(shape) == 1:
        return uniform(0.5, 1.5)
    if len(shape) == 3 and shape[0] == 1:  # a transformer's class token and position embeddings
        return uniform(-0.5, 0.5)
    bound = math.sqrt(3 * 2 * gain * _VARIANCE / math.prod(shape[1:]))
    return uniform(-bound, bound)


def draw_images(height: int, width: int) -> np.ndarray:
    """Returns two images `[2, h, w, 3]` of noise that is fine in the first and coarse in the second."""
    random = np.random.Generator(np.random.PCG64(0))
    fine = random.uniform(-2, 2, (height, width, 3)).astype(np.float32)
    tiles = random.uniform(-2, 2, (-(-height // 8), -(-width // 8), 3)).astype(np.float32)
    coarse = tiles.repeat(8, 0).repeat(8, 1)[:height, :width]
    return np.stack([fine + 0.5 * coarse, coarse - 0.3 * fine + 0.3])


def checksum(shapes: Iterable[tuple[str, tuple[int, ...]]]) -> str:
    """Returns a digest of a state dict's keys and shapes, in any order."""
    lines = sorted(f"{key} {list(shape)}" for key, shape in shapes)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()
