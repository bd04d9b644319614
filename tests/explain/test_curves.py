"""Deletion and insertion, and which method they say is best."""

import numpy as np
import pytest

from jaxnets.explain.compare import RANDOM, Comparison, compare
from jaxnets.explain.curves import area, make_curves, order
from jaxnets.explain.methods import METHODS
from tests.explain.test_pixels import GREY, Linear
from tests.tiny import classifier, images


def test_pixels_are_ranked_by_their_map():
    heat = np.array([[[3.0, 1.0], [2.0, 4.0]]])
    assert order(heat).tolist() == [[1, 3, 2, 0]]


def test_equal_pixels_are_ranked_by_lot_and_not_by_place():
    ranks = order(np.zeros((2, 20, 20)))
    assert (np.sort(ranks[0]) == np.arange(400)).all()
    assert abs(np.corrcoef(ranks[0], np.arange(400))[0, 1]) < 0.2
    np.testing.assert_array_equal(ranks[0], ranks[1])  # the same lot for each image of a batch


def test_the_curves_of_a_linear_model_are_those_of_its_sums():
    """The probability after each step is the softmax of the weighted sum of the pixels that are left."""
    random = np.random.default_rng(0)
    kernel = random.normal(size=(48, 3)).astype(np.float32)
    image = random.integers(0, 256, (1, 6, 8, 1), np.uint8)
    ranks = order(random.random((1, 6, 8)))
    curves = make_curves(Linear(), GREY, "softmax", steps=5)
    deletion, insertion = curves({"params": {"kernel": kernel}}, image, np.array([1], np.int32), ranks)
    x = ((image.ravel() / 255) - 0.3) / 0.5
    for step, count in enumerate([0, 10, 19, 29, 38, 48]):
        logits = np.where(ranks[0] < count, 0, x) @ kernel
        assert deletion[0, step] == pytest.approx(np.exp(logits)[1] / np.exp(logits).sum(), rel=1e-4)
    assert insertion[0, -1] == pytest.approx(float(deletion[0, 0]), rel=1e-5)  # the whole image


def test_the_area_is_that_of_trapezoids():
    assert area(np.ones((2, 9))).tolist() == [1, 1]
    assert area(np.array([1.0, 0.5, 0.0])) == 0.5
    assert area(np.array([1.0, 0.0, 0.0])) == 0.25


def test_the_best_method_is_the_one_whose_insertion_exceeds_its_deletion_most():
    flat, high = np.full((2, 5), 0.5), np.full((2, 5), 0.9)
    found = Comparison(("a", "b", RANDOM), np.stack([flat, flat, flat]), np.stack([flat, high, flat]))
    assert found.best == "b"
    rows = found.rows()
    assert [row["method"] for row in rows] == ["b", "a", RANDOM]
    assert rows[0]["gain"] == pytest.approx(0.4)
    assert (rows[0]["beats_random"], rows[1]["beats_random"]) == (1, 0)
    assert rows[1]["behind_best"] == pytest.approx(0.4)


def test_methods_are_compared_on_the_same_images():
    made = classifier("cifar", engine_name="jax")
    fitted = np.stack([made.preprocess.fit(image) for image in images(3)])
    chosen = [METHODS["gradcam"], METHODS["layercam"]]
    labels = np.array([0, 1, 2])
    found = compare(made.explainer, "softmax", fitted, labels, chosen, steps=4)
    assert found.methods == ("gradcam", "layercam", RANDOM)
    assert found.deletion.shape == (3, 3, 5)
    expected = made.engine.probabilities(fitted)[[0, 1, 2], labels]
    for method in range(3):  # before anything is deleted, and after everything is inserted, it is the image
        np.testing.assert_allclose(found.deletion[method, :, 0], expected, rtol=1e-4)
        np.testing.assert_allclose(found.insertion[method, :, -1], expected, rtol=1e-4)
    alone = compare(made.explainer, "softmax", fitted[1:2], labels[1:2], chosen, steps=4)
    np.testing.assert_allclose(alone.insertion[0, 0], found.insertion[0, 1], rtol=1e-3)
    saved = found.to_json()
    assert saved["best"] == found.best
    assert saved["images"] == 3
    assert len(saved["deletion"]["gradcam"]) == len(saved["share"]) == 5
