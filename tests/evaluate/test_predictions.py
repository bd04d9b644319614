"""Predictions: the logits of every image, whoever answers and in however many views."""

from dataclasses import replace

import numpy as np
import pytest

from jaxnets.data.examples import Examples
from jaxnets.data.sources import ArraySplit
from jaxnets.errors import UserError
from jaxnets.evaluate.asked import open_onnx
from jaxnets.evaluate.predictions import collect
from jaxnets.evaluate.run import at_size
from jaxnets.evaluate.views import find_views
from jaxnets.export.onnx_export import export_onnx
from jaxnets.models.forward import forward
from tests import tiny
from tests.evaluate import made

SIDE = tiny.SEEN.height, tiny.SEEN.width


def examples(fit, count: int = 11, groups=None) -> Examples:
    random = np.random.default_rng(0)
    split = ArraySplit(
        random.integers(0, 256, (count, 40, 38, 3), np.uint8),
        random.integers(0, 5, count).astype(np.int32),
        "made",
        groups=groups,
    )
    return Examples(split, np.arange(count)[::-1].copy(), fit, skip_corrupt=False)


def direct(classifier, images) -> np.ndarray:
    return np.asarray(forward(classifier.model, classifier.preprocess, classifier.variables, images))


@pytest.fixture(scope="module")
def classifier():
    return tiny.classifier()


@pytest.mark.parametrize("batch_size", [4, 64])
def test_every_image_is_asked_once_and_in_its_order(classifier, batch_size):
    given = examples(classifier.preprocess, groups=np.arange(11).astype(np.uint64) // np.uint64(2))
    found = collect(classifier, given, split="test", batch_size=batch_size, threads=2)
    images = np.stack([given.read(i).image for i in range(11)])
    np.testing.assert_allclose(found.logits, direct(classifier, images), atol=1e-4)
    assert found.logits.dtype == np.float32
    np.testing.assert_array_equal(found.labels, given.labels)
    assert found.paths[0] == "made[10]"
    assert len(set(found.groups.tolist())) == 6
    assert found.groups[0] == found.groups[0]
    np.testing.assert_allclose(found.probabilities(), classifier.engine.probabilities(images), atol=1e-4)


@pytest.mark.parametrize("inside", [True, False])
def test_an_onnx_file_answers_as_the_run_it_was_exported_from(classifier, tmp_path, inside):
    pytest.importorskip("onnxruntime")
    (tmp_path / "m.onnx").write_bytes(export_onnx(classifier, normalised_inside=inside))
    asked = open_onnx(tmp_path / "m.onnx")
    given = examples(asked.preprocess)
    ours, theirs = (collect(who, given, split="test", batch_size=4) for who in (classifier, asked))
    np.testing.assert_allclose(theirs.logits, ours.logits, atol=1e-4)
    assert theirs.class_names == ours.class_names
    assert not asked.several_labels


@pytest.mark.parametrize("name", ["airbench", "crops"])
def test_the_logits_of_views_are_averaged_whoever_answers(classifier, tmp_path, name):
    views = find_views(name)
    given = examples(views.fit(classifier.preprocess), 3)
    found = collect(classifier, given, split="test", batch_size=2, views=views)
    images = np.stack([given.read(i).image for i in range(3)])
    seen = [direct(classifier, view) for view in views.arrays(images, classifier.preprocess)]
    assert len(seen) == len(views.weights)
    assert sum(views.weights) == pytest.approx(1)
    expected = sum(weight * each for weight, each in zip(views.weights, seen, strict=True))
    np.testing.assert_allclose(found.logits, expected, atol=1e-4)
    if name == "airbench":
        pytest.importorskip("onnxruntime")
        (tmp_path / "m.onnx").write_bytes(export_onnx(classifier, normalised_inside=True))
        other = collect(open_onnx(tmp_path / "m.onnx"), given, split="test", batch_size=2, views=views)
        np.testing.assert_allclose(other.logits, expected, atol=1e-4)


def test_airbench_s_shifts_reflect_what_lies_at_the_border():
    """As `infer_mirror_translate` of airbench94: padded by reflection, and cut at both ends of the diagonal."""
    image = np.random.default_rng(0).integers(0, 256, (2, 6, 5, 3), np.uint8)
    padded = np.pad(image, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="reflect")
    preprocess = replace(tiny.SEEN, height=6, width=5)
    seen = find_views("airbench").arrays(image, preprocess)
    expected = [image, padded[:, 0:6, 0:5], padded[:, 2:8, 2:7]]
    for i, each in enumerate(expected):
        np.testing.assert_array_equal(seen[2 * i], each)
        np.testing.assert_array_equal(seen[2 * i + 1], each[:, :, ::-1])


def test_the_first_of_the_crops_is_what_is_seen_without_them():
    views = find_views("ten-crops")
    whole = views.fit(tiny.SEEN)
    image = np.random.default_rng(0).integers(0, 256, (*tiny.SEEN.resized_sides, 3), np.uint8)
    crop = views.arrays(whole.fit(image)[None], tiny.SEEN)
    np.testing.assert_array_equal(crop[0][0], tiny.SEEN.fit(image))
    assert {each.shape for each in crop} == {(1, *SIDE, 3)}


def test_crops_of_a_model_that_sees_all_of_an_image_are_refused():
    with pytest.raises(UserError, match=r"sees all of an image .*give --tta mirror"):
        find_views("crops").fit(replace(tiny.SEEN, crop_fraction=1.0))
    with pytest.raises(UserError, match="--tta must be one of mirror, airbench, crops, ten-crops, found 'flip'"):
        find_views("flip")


def test_another_size_is_asked_where_the_network_can(classifier):
    larger = at_size(classifier, (48, 40))
    assert (larger.preprocess.height, larger.preprocess.width) == (48, 40)
    found = collect(larger, examples(larger.preprocess, 3), split="test", batch_size=2)
    assert found.logits.shape == (3, 5)


def test_logits_that_are_no_numbers_are_refused_with_the_first_image():
    logits = np.zeros((4, 3))
    logits[2, 1] = np.nan
    logits[3, 0] = np.inf
    with pytest.raises(UserError, match=r"answers 2 of 4 images with what is no number .*the first is 2\.png"):
        made.predictions([0, 1, 2, 0], logits)


@pytest.mark.parametrize(
    ("file", "expected"),
    [(None, "there is no file"), (b"nothing", "cannot be opened by ONNX Runtime"), ("foreign", "jaxnets wrote")],
)
def test_what_is_no_file_of_ours_is_refused(tmp_path, classifier, file, expected):
    onnx = pytest.importorskip("onnx")
    path = tmp_path / "m.onnx"
    if file == "foreign":
        model = onnx.load_from_string(export_onnx(classifier, normalised_inside=True))
        del model.metadata_props[:]
        file = model.SerializeToString()
    if file is not None:
        path.write_bytes(file)
    with pytest.raises(UserError, match=expected):
        open_onnx(path)


def test_some_of_the_predictions_keep_what_belongs_to_them():
    p = made.random(6, 3)
    some = p.take(p.labels == p.labels[0])
    assert some.paths[0] == p.paths[0]
    np.testing.assert_array_equal(some.logits, p.logits[some.index])
    np.testing.assert_array_equal(some.take(np.array([1])).index, some.index[1:2])
