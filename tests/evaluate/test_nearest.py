"""Which training images an image is like."""

from types import SimpleNamespace

import numpy as np
import pytest

from jaxnets.errors import UserError
from jaxnets.evaluate import nearest as room
from jaxnets.evaluate.nearest import most_alike, nearest, sheet, unit
from jaxnets.preprocess import Preprocess
from tests.evaluate.test_hardest import run  # noqa: F401

BLANK = np.zeros((8, 8, 3), np.uint8)


def test_the_most_alike_are_those_of_the_largest_cosine():
    random = np.random.default_rng(0)
    vectors, asked = (unit(random.normal(size=(count, 8)).astype(np.float32)) for count in (50, 3))
    readable = np.ones(50, bool)
    chosen, cosine = most_alike(asked, vectors, readable, 4)
    for row in range(3):
        assert chosen[row].tolist() == sorted(range(50), key=lambda i, row=row: -float(asked[row] @ vectors[i]))[:4]
        assert (np.diff(cosine[row]) <= 0).all()
    readable[chosen[0, 0]] = False
    assert chosen[0, 0] not in most_alike(asked, vectors, readable, 50)[0]


def test_a_vector_of_length_0_is_like_nothing():
    assert unit(np.zeros((1, 4), np.float32)).tolist() == [[0, 0, 0, 0]]


@pytest.fixture
def asked(run, tmp_path, monkeypatch):  # noqa: F811
    """The run, with a model that sees an image's brightness; and how many batches it has embedded."""
    calls = []

    def embed(images):
        calls.append(len(images))
        angle = np.asarray([np.mean(image) for image in images]) / 255
        return np.stack([np.cos(angle), np.sin(angle)], 1).astype(np.float32)

    preprocess = Preprocess(height=8, width=8, channels=3, mean=(0.5,) * 3, std=(0.2,) * 3)
    fake = SimpleNamespace(
        name="fake", model=None, preprocess=preprocess, variables={}, embed=embed, embed_fitted=embed
    )
    monkeypatch.setattr(room, "load", lambda path, checkpoint, weights: fake)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return run, calls


def test_the_nearest_come_first_with_their_class_and_their_name(asked):
    made, _ = asked
    (found,) = nearest(made.path, [BLANK + 200], 3)
    # of the train split, whose images are brighter by one: 201, 241 and 151
    assert [near.name.removeprefix("train/") for near in found] == ["dark/2.png", "bright/2.png", "bright/3.png"]
    assert found[0].similarity == pytest.approx(1, abs=1e-5)
    assert (found[0].labels, found[0].image[0, 0, 0]) == (("dark",), 201)
    assert "dark" in repr(found[0])
    assert sheet(BLANK, found).width > 4 * 160
    assert len(nearest(made.path, [BLANK], 99)[0]) == 8


def test_the_vectors_of_the_training_images_are_kept_and_made_anew_where_they_are_damaged(asked, tmp_path):
    made, calls = asked
    first = nearest(made.path, [BLANK], 2)
    assert calls == [8, 1]
    again = nearest(made.path, [BLANK], 2)
    assert calls == [8, 1, 1]
    (kept,) = (tmp_path / "cache" / "jaxnets" / "embeddings").iterdir()
    kept.write_bytes(b"PK damaged")
    third = nearest(made.path, [BLANK], 2)
    assert calls == [8, 1, 1, 8, 1]
    assert [near.name for near in first[0]] == [near.name for near in again[0]] == [near.name for near in third[0]]


def test_what_is_no_run_has_no_training_images():
    with pytest.raises(UserError, match="is no run, and has no training images here"):
        nearest("efficientnet_lite0", [BLANK])
