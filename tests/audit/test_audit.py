"""What is planted in a folder is found, and what is clean is not accused."""

import json

import numpy as np
import pytest
from PIL import Image

from jaxnets.audit.audit import Audit, run_audit
from jaxnets.config import DataConfig
from jaxnets.data.sources import open_source
from tests.audit.dirt import ALONE, COPIES, MOVED, accused, missed, plant

CLASSES = {"amber": (170, 120, 60), "teal": (40, 130, 140)}


class Colours:
    """An embedding that knows the classes of `made`: the mean colour of each quarter."""

    name = "colours"

    def fit(self, image):
        rgb = Image.fromarray(image if image.shape[2] == 3 else np.repeat(image[..., :1], 3, 2))
        return np.asarray(rgb.resize((2, 2), Image.Resampling.BOX))

    def embed(self, images):
        return images.reshape(len(images), -1).astype(np.float32) - 100


def scene(rng, colour):
    """Blots of many sizes over a colour, as no two images of a camera are alike."""
    small = rng.normal(0, 1, (3, 3, 1)) * 14
    image = np.zeros((96, 128, 3), np.float32) + colour
    for size, contrast in ((3, 14), (6, 22), (12, 22), (24, 10)):
        small = Image.fromarray(rng.normal(0, contrast, (size, size)).astype(np.float32))
        image += np.asarray(small.resize((128, 96), Image.Resampling.BICUBIC))[..., None]
    return Image.fromarray(image.clip(12, 245).astype(np.uint8))


def make(folder, train, test, seed=0):
    rng = np.random.default_rng(seed)
    for split, count in (("train", train), ("test", test)):
        for name, colour in CLASSES.items():
            (folder / split / name).mkdir(parents=True)
            for number in range(count):
                scene(rng, colour).save(folder / split / name / f"{number}.jpg", quality=92)
    return folder


def audit_of(folder, embedding=None, **data):
    spec = DataConfig(source=f"folder:{folder}", **data)
    source = open_source(spec, seed=0)
    selections = {name: (split, np.arange(len(split))) for name, split in source.splits.items()}
    audit = Audit(description=spec.source, notes=[])
    run_audit(
        audit, selections, source.class_names, threads=2, white_level=spec.white_level, embedding=embedding or Colours()
    )
    return audit


@pytest.fixture(scope="module")
def dirty(tmp_path_factory):
    folder = make(tmp_path_factory.mktemp("dirty") / "images", train=70, test=20)
    planted = plant(folder, each=2, seed=1)
    return planted, json.loads(json.dumps(audit_of(folder).to_json()))


@pytest.mark.parametrize("kind", [*ALONE, *COPIES, MOVED])
def test_everything_planted_is_found_by_its_name(dirty, kind):
    planted, report = dirty
    of_kind = [each for each in planted if each.kind == kind]
    assert len(of_kind) == 2
    assert missed(of_kind, report) == []


def test_clean_images_beside_dirty_ones_are_not_accused(dirty):
    planted, report = dirty
    assert accused(planted, report) == []


def test_training_would_suffer_from_what_was_planted(dirty):
    _, report = dirty
    problems = {finding["kind"] for finding in report["findings"] if finding["severity"] == "problem"}
    assert problems == {"leakage", "contradiction"}
    assert report["status"] == 1


def test_a_clean_folder_has_no_findings(tmp_path):
    audit = audit_of(make(tmp_path / "images", train=30, test=10))
    assert audit.findings == []
    assert audit.status == 0
    assert audit.left == []
