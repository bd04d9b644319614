"""The digits are scikit-learn's, scaled, and split the same way for everybody."""

import subprocess
import sys
import zlib

import numpy as np

from jaxnets.config import DataConfig
from jaxnets.data.sources import ArraySplit, Source, open_source


def _open(seed: int = 0, **spec) -> Source:
    return open_source(DataConfig(source="digits", **spec), seed)


def _arrays(source: Source, split: str) -> ArraySplit:
    found = source.splits[split]
    assert isinstance(found, ArraySplit)
    return found


def test_digits_are_those_of_scikit_learn():
    from sklearn.datasets import load_digits

    source = _open()
    images = np.concatenate([_arrays(source, split).images for split in ("train", "test")])
    labels = np.concatenate([_arrays(source, split).labels for split in ("train", "test")])
    expected = load_digits()
    ours = sorted((image.tobytes(), label) for image, label in zip(images, labels, strict=True))
    scaled = np.round(expected.images * 255 / 16).astype(np.uint8)
    theirs = sorted((image.tobytes(), label) for image, label in zip(scaled, expected.target, strict=True))
    assert ours == theirs


def test_a_pixel_that_is_full_on_is_255():
    assert _arrays(_open(), "train").images.max() == 255


def test_digits_have_360_test_images_with_36_of_each_class():
    assert np.bincount(_open().splits["test"].labels).tolist() == [36] * 10


def test_digits_have_one_grey_channel_and_8_by_8_pixels():
    source = _open()
    assert (source.image_size, source.channels, _arrays(source, "train").images.shape) == ((8, 8), 1, (1437, 8, 8, 1))


def test_the_split_of_the_digits_depends_on_neither_seed_nor_share():
    one, other = _open(seed=0), _open(seed=7, test_share=0.5)
    np.testing.assert_array_equal(_arrays(one, "test").images, _arrays(other, "test").images)


def test_the_split_of_the_digits_is_the_one_that_was_published():
    """Fixed for good: whoever changes it makes accuracies before and after incomparable."""
    test = _arrays(_open(), "test")
    assert (zlib.crc32(test.images.tobytes()), zlib.crc32(test.labels.tobytes())) == (3153251498, 2220622797)


def test_opening_the_digits_does_not_import_scikit_learn():
    code = (
        "import sys; from jaxnets.config import DataConfig; from jaxnets.data.sources import open_source;"
        "open_source(DataConfig(), 0); assert 'sklearn' not in sys.modules and 'scipy' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
