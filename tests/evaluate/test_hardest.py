"""Which images a run finds hardest."""

from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from jaxnets.config import resolve
from jaxnets.data.dataset import open_dataset
from jaxnets.errors import UserError
from jaxnets.evaluate import hardest as room
from jaxnets.evaluate.hardest import hardest, sheet
from jaxnets.run.directory import ModelCard, RunDirectory

GREYS = {"dark": (10, 100, 200, 60), "bright": (250, 110, 240, 150)}


@pytest.fixture
def run(tmp_path, monkeypatch):
    """A run that takes the brightness of an image for the probability that it is "bright"."""

    def probabilities(images):
        bright = images.mean((1, 2, 3)) / 255
        return np.stack([bright, 1 - bright], 1).astype(np.float32)

    for split in ("train", "test", "val"):
        for name, greys in GREYS.items():
            (tmp_path / "set" / split / name).mkdir(parents=True)
            for i, grey in enumerate(greys):
                image = Image.fromarray(np.full((8, 8, 3), grey + len(split) - 4, np.uint8))
                image.save(tmp_path / "set" / split / name / f"{i}.png")
    config = resolve({"data": {"source": f"folder:{tmp_path / 'set'}", "image_size": 8}})
    data = open_dataset(config)
    assert data.class_names == ("bright", "dark")
    fields = {"class_names": data.class_names, "preprocess": data.preprocess, "data": data.fingerprint()}
    made = RunDirectory(tmp_path / "run")
    made.create()
    made.write(config, ModelCard(name="resnet8_cifar", fields={}, **fields))
    fake = SimpleNamespace(engine=SimpleNamespace(probabilities=probabilities))
    monkeypatch.setattr(room, "load", lambda path, checkpoint: fake)
    monkeypatch.setattr(room, "_BATCH", 3)
    return made


@pytest.mark.parametrize(
    ("by", "expected", "right"),
    [
        # dark ones of 200, bright ones of 110 and 150, dark ones of 100
        ("wrong", ["dark/2.png", "bright/1.png", "bright/3.png", "dark/1.png"], [False, False, True, True]),
        # as far from 127.5 as 17.5, 22.5, 27.5 and 67.5
        ("unsure", ["bright/1.png", "bright/3.png", "dark/1.png", "dark/3.png"], [False, True, True, True]),
    ],
)
def test_the_hardest_come_first_of_the_split_that_was_asked_for(run, by, expected, right):
    found = hardest(run.path, 4, by=by, split="test")
    assert [image.name.removeprefix("test/") for image in found] == expected
    assert [image.is_right for image in found] == right
    number = int(expected[0][-5])
    label = expected[0].partition("/")[0]
    assert (found[0].labels, found[0].image[0, 0, 0]) == ((label,), GREYS[label][number])
    assert f"said {found[0].said}" in repr(found[0])
    assert sheet(found, "hardest").width > 4 * 160


def test_there_are_no_more_than_there_are_images(run):
    assert len(hardest(run.path, 99)) == 8


def test_what_cannot_be_asked_is_refused(run):
    with pytest.raises(UserError, match=r"there is no split 'tset' \(did you mean 'test'"):
        hardest(run.path, split="tset")
    with pytest.raises(UserError, match="by must be wrong or unsure, found 'worst'"):
        hardest(run.path, by="worst")


def test_of_several_labels_the_worst_of_an_image_counts():
    probabilities = np.array([[0.9, 0.1], [0.9, 0.6], [0.2, 0.45]], np.float32)
    targets = np.array([[1, 0], [0, 1], [0, 0]], np.float32)
    np.testing.assert_allclose(
        room._hardness(probabilities, targets, "wrong", several=True), [0.1, 0.9, 0.45], atol=1e-6
    )
    found = room._hardness(probabilities, targets, "unsure", several=True)
    np.testing.assert_allclose(found, [-0.4, -0.1, -0.05], atol=1e-6)
