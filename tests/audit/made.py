"""Images and folders made for the tests of the audit."""

import numpy as np
from PIL import Image

from jaxnets.audit.audit import Audit, run_audit
from jaxnets.config import DataConfig
from jaxnets.data.sources import open_source

CLASSES = {"amber": (170, 120, 60), "teal": (40, 130, 140)}


class Colours:
    """An embedding that knows the classes of `make`: the mean colour of each quarter."""

    name = "colours"

    def fit(self, image, original):
        rgb = Image.fromarray(image if image.shape[2] == 3 else np.repeat(image[..., :1], 3, 2))
        return np.asarray(rgb.resize((2, 2), Image.Resampling.BOX))

    def embed(self, images):
        return images.reshape(len(images), -1).astype(np.float32) - 100


def scene(rng, colour=(120, 120, 120)):
    """Blots of many sizes over a colour, as no two images of a camera are alike."""
    image = np.zeros((96, 128, 3), np.float32) + colour
    for size, contrast in ((3, 14), (6, 22), (12, 22), (24, 10)):
        small = Image.fromarray(rng.normal(0, contrast, (size, size)).astype(np.float32))
        image += np.asarray(small.resize((128, 96), Image.Resampling.BICUBIC))[..., None]
    return Image.fromarray(image.clip(12, 245).astype(np.uint8))


def make(folder, train, test, classes=CLASSES, seed=0):
    """Makes train/CLASS and test/CLASS below a folder, with so many images of each class."""
    rng = np.random.default_rng(seed)
    for split, count in (("train", train), ("test", test)):
        for name, colour in classes.items():
            (folder / split / name).mkdir(parents=True)
            for number in range(count):
                scene(rng, colour).save(folder / split / name / f"{number}.jpg", quality=92)
    return folder


def audit_of_splits(splits, class_names, embedding=None):
    """Audits splits of a source, by name."""
    audit = Audit(description="made", notes=[])
    selections = {name: (split, np.arange(len(split))) for name, split in splits.items()}
    run_audit(audit, selections, tuple(class_names), threads=2, white_level=65535, embedding=embedding)
    return audit


def audit_of(folder, embedding=None):
    source = open_source(DataConfig(source=f"folder:{folder}"), seed=0)
    return audit_of_splits(source.splits, source.class_names, embedding)
