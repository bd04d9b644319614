"""TFDS builders of the kinds that there are: of arrays, files and archives, with and without a test split."""

import gzip
import io
from typing import ClassVar

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image

NAMES = ["cat", "dog", "eel"]


def array(index: int, channels: int) -> np.ndarray:
    return np.random.default_rng(index).integers(0, 256, (7, 5, channels), np.uint8)


class _Builder(tfds.core.GeneratorBasedBuilder):
    """Yields `count` examples for each split."""

    VERSION = tfds.core.Version("1.0.0")
    SPLITS: ClassVar[dict[str, int]] = {"train": 20, "test": 9}

    def _info(self):
        features = {"image": self.image_feature(), "label": tfds.features.ClassLabel(names=NAMES)}
        return tfds.core.DatasetInfo(
            builder=self,
            features=tfds.features.FeaturesDict(features | self.others()),
            supervised_keys=("image", "label"),
        )

    def _split_generators(self, dl_manager):
        return {split: self._generate_examples(split) for split in self.SPLITS}

    def _generate_examples(self, split):
        for index in range(self.SPLITS[split]):
            yield (
                index,
                {"image": self.image(index), "label": self.label(split, index)} | dict.fromkeys(self.others(), 0),
            )

    def image_feature(self):
        return tfds.features.Image(shape=(7, 5, 3))

    def image(self, index):
        return array(index, 3)

    def label(self, split, index):
        return index % 3

    def others(self):
        return {}


class JaxnetsRgb(_Builder, tfds.core.GeneratorBasedBuilder):
    """Arrays of three channels, and a label that is not the one to be learned."""

    def others(self):
        return {"aaa": tfds.features.ClassLabel(names=["one"])}


class JaxnetsGrey(_Builder, tfds.core.GeneratorBasedBuilder):
    def image_feature(self):
        return tfds.features.Image(shape=(7, 5, 1))

    def image(self, index):
        return array(index, 1)


class JaxnetsAlpha(_Builder, tfds.core.GeneratorBasedBuilder):
    def image_feature(self):
        return tfds.features.Image(shape=(7, 5, 4), encoding_format="png")

    def image(self, index):
        return array(index, 4)


class JaxnetsJpeg(_Builder, tfds.core.GeneratorBasedBuilder):
    """Arrays that the builder wants stored as JPEG."""

    def image_feature(self):
        return tfds.features.Image(shape=(None, None, 3), encoding_format="jpeg")

    def image(self, index):
        return np.full((16, 16, 3), index * 10, np.uint8)


class JaxnetsBytes(_Builder, tfds.core.GeneratorBasedBuilder):
    """Encoded files, stored as they are; a train split alone."""

    SPLITS: ClassVar[dict[str, int]] = {"train": 30}

    def image_feature(self):
        return tfds.features.Image()

    def image(self, index):
        return io.BytesIO(encoded(index))


class JaxnetsPaths(_Builder, tfds.core.GeneratorBasedBuilder):
    """Paths of files that TFDS unpacks from a .gz, read by the builder through tf.io.gfile as well."""

    SPLITS: ClassVar[dict[str, int]] = {"train": 6, "validation": 3}
    FOLDER: ClassVar[str] = ""

    def image_feature(self):
        return tfds.features.Image()

    def _split_generators(self, dl_manager):
        from tensorflow_datasets.core.utils.lazy_imports_utils import tensorflow as tf

        packed = {}
        for index in range(6):
            packed[str(index)] = f"{self.FOLDER}/{index}.png.gz"
            with tf.io.gfile.GFile(packed[str(index)], "wb") as file:
                file.write(gzip.compress(encoded(index)))
        assert len(tf.io.gfile.listdir(self.FOLDER)) == 6
        self.unpacked = dl_manager.extract(packed)
        return super()._split_generators(dl_manager)

    def image(self, index):
        return self.unpacked[str(index)]


class JaxnetsRecoded(_Builder, tfds.core.GeneratorBasedBuilder):
    """Files that the builder decodes, cuts and encodes anew, as cats_vs_dogs and oxford_iiit_pet do."""

    def image_feature(self):
        return tfds.features.Image()

    def image(self, index):
        from tensorflow_datasets.core.utils.lazy_imports_utils import tensorflow as tf

        image = tf.image.decode_image(encoded(index))
        assert tf.shape(image)[-1] == 3
        return io.BytesIO(tf.io.encode_png(image[:, :, :1]).numpy())


class JaxnetsContest(_Builder, tfds.core.GeneratorBasedBuilder):
    """A test split whose labels are kept secret."""

    SPLITS: ClassVar[dict[str, int]] = {"train": 6, "validation": 4, "test": 5}

    def label(self, split, index):
        return -1 if split == "test" else index % 3


class JaxnetsTensor(_Builder, tfds.core.GeneratorBasedBuilder):
    """No image among the features."""

    def image_feature(self):
        return tfds.features.Tensor(shape=(7, 5, 3), dtype=np.uint8)


class JaxnetsNeedy(_Builder, tfds.core.GeneratorBasedBuilder):
    """A builder that computes with TensorFlow."""

    def image(self, index):
        from tensorflow_datasets.core.utils.lazy_imports_utils import tensorflow as tf

        return tf.reverse(array(index, 3), [0]).numpy()


class JaxnetsRemote(_Builder, tfds.core.GeneratorBasedBuilder):
    """A download that nobody answers."""

    def _split_generators(self, dl_manager):
        dl_manager.download("http://127.0.0.1:1/images.zip")
        raise AssertionError("the download must fail")


def encoded(index: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(array(index, 3)).save(buffer, "PNG")
    return buffer.getvalue()
