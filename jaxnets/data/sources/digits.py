"""scikit-learn's handwritten digits: 1,797 grey images of 8×8 pixels, there without a download."""

import gzip
import importlib.util
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Int, Int64, UInt8

from jaxnets.config import DataConfig
from jaxnets.data.sources.base import ArraySplit, Source
from jaxnets.errors import UserError

_COUNT = 1797
_LEVELS = 16  # pixels are 0 … 16: how many of a 4×4 block's 16 pixels the pen touched
_TEST_PER_CLASS = 36  # of 174 to 183; 360 in all, a fifth
_SPLIT_SEED = 1797  # fixed: whoever reports an accuracy on the digits reports it on the same 360, whatever their seed


def open_digits(_location: str, _spec: DataConfig, _known: Sequence[str] | None) -> Source:
    """Opens the digits: "train" has 1,437 images, "test" 360, 36 of each class, the same in every run.

    Returns:
        A source in memory, uint8 `[n, 8, 8, 1]`, scaled from 0 … 16 to 0 … 255 and rounded.

    Raises:
        UserError: if scikit-learn is not installed or its file is not what it should be.
    """
    table = _read_table()
    if table.shape != (_COUNT, 65) or table[:, :64].min() < 0 or table[:, :64].max() > _LEVELS:
        raise UserError(
            f"scikit-learn's digits should be {_COUNT} rows of 64 pixels in 0 … {_LEVELS} and a label, found the shape "
            f"{table.shape}: reinstall scikit-learn"
        )
    images = _scale(table[:, :64])
    labels = table[:, 64].astype(np.int32)
    train, test = _published_split(labels)
    return Source(
        description="digits",
        class_names=tuple(str(digit) for digit in range(10)),
        splits={
            "train": ArraySplit(images[train], labels[train], "train"),
            "test": ArraySplit(images[test], labels[test], "test"),
        },
        image_size=(8, 8),
        channels=1,
    )


def _published_split(labels: Int[np.ndarray, " n"]) -> tuple[Int64[np.ndarray, " train"], Int64[np.ndarray, " test"]]:
    """Returns the images to train on and those to test on, by their numbers in the file, which never changes.

    Raw output of PCG64 orders them: NumPy promises that it stays, which it does not of `Generator.permutation`.
    """
    test = np.zeros(len(labels), bool)
    for digit in range(10):
        members = np.flatnonzero(labels == digit)
        keys = np.random.PCG64(np.random.SeedSequence([_SPLIT_SEED, digit])).random_raw(len(members))
        test[members[np.argsort(keys, kind="stable")[:_TEST_PER_CLASS]]] = True
    return np.flatnonzero(~test), np.flatnonzero(test)


def _scale(pixels: np.ndarray) -> UInt8[np.ndarray, "n 8 8 1"]:
    return np.round(pixels * (255 / _LEVELS)).astype(np.uint8).reshape(-1, 8, 8, 1)


def _read_table() -> np.ndarray:
    """Returns int64 `[1797, 65]`: 64 pixels, row by row, and the label.

    The file inside the wheel is read directly: importing sklearn.datasets takes a second and 60 MiB (it brings SciPy),
    reading the file some milliseconds.
    """
    found = importlib.util.find_spec("sklearn")  # looks, and imports nothing
    if found is None:
        raise UserError("config.data.source digits needs scikit-learn, which is missing: pip install scikit-learn")
    for folder in found.submodule_search_locations or ():
        path = Path(folder, "datasets", "data", "digits.csv.gz")
        if path.is_file():
            text = gzip.decompress(path.read_bytes()).replace(b"\n", b",").rstrip(b",")
            return np.array(text.split(b","), np.float64).astype(np.int64).reshape(-1, 65)
    from sklearn.datasets import load_digits  # a scikit-learn that keeps the file elsewhere

    data, target = load_digits(return_X_y=True)
    return np.column_stack([data, target]).astype(np.int64)
