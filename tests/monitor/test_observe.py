"""What a record keeps of an image and its answer."""

import numpy as np
import pytest

from jaxnets.monitor.observe import Observer, look
from jaxnets.monitor.records import projection
from jaxnets.trust.refusal import Refusal
from tests.serve.fakes import FakePredictor


def test_brightness_and_sharpness_are_those_of_their_definitions():
    image = np.random.default_rng(0).integers(0, 256, (7, 5, 3), np.uint8)
    x = image.astype(float) / 255
    squares = np.concatenate([(np.diff(x, axis=0) ** 2).ravel(), (np.diff(x, axis=1) ** 2).ravel()])
    assert look(image) == pytest.approx((x.mean(), np.sqrt(squares.mean())))
    assert look(image[..., :1]) == pytest.approx((x[..., 0].mean(), look(image[..., :1])[1]))


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 5, 3), (5, 1, 1)])
def test_an_image_of_one_row_or_column_has_both_too(shape):
    assert look(np.full(shape, 51, np.uint8)) == pytest.approx((0.2, 0.0))


def test_a_record_says_what_the_answer_was():
    observer = Observer(FakePredictor(), "it")
    images = np.stack([np.full((8, 8, 1), value, np.uint8) for value in (10, 60, 255)])
    rows = observer.rows(images)
    np.testing.assert_array_equal(rows[:, : observer.columns], FakePredictor().rows_of_fitted(images))
    found = observer.records(rows, [(3, 4), (5, 6), (7, 8)], ids=np.arange(3), times=2.0, latencies=0.5)
    assert found["label"].tolist() == [0, 2, 9]
    assert found["confidence"].tolist() == [1, 1, 1]
    assert found["energy"].tolist() == [-10, -60, -255]
    assert found["height"].tolist() == [3, 5, 7]
    assert found["width"].tolist() == [4, 6, 8]
    np.testing.assert_allclose(found["brightness"], [10 / 255, 60 / 255, 1], rtol=1e-6)
    np.testing.assert_allclose(found["projection"][1], np.full(64, 60.0) @ projection(64, 0), rtol=1e-4)
    assert found["truth"].tolist() == [-1, -1, -1]


@pytest.mark.parametrize(
    ("refusal", "refused"),
    [
        (Refusal(), [False, False, False]),
        (Refusal(probability=0.6), [False, True, False]),
        (Refusal(energy=-20.0), [True, False, False]),
        (Refusal(probability=0.6, energy=-20.0), [True, True, False]),
        (Refusal(distance=1.0), [False, False, True]),
    ],
)
def test_a_record_is_refused_where_the_answer_is(refusal, refused):
    from jaxnets.answer import reason_of

    predictor = FakePredictor(refusal=refusal, labels=("a", "b"))
    scores = {"energy": [-10.0, -60.0, -99.0], "distance": [0.5, 1.0, np.nan]}
    confidence = np.array([0.7, 0.5, 0.9])
    columns = [confidence, 1 - confidence, *(np.array(scores[name]) for name in refusal.scores)]
    answers = np.stack(columns, 1).astype(np.float32)
    predictor.rows_of_fitted = lambda images: answers[: len(images)]
    observer = Observer(predictor, "it")
    found = observer.records(observer.rows(np.zeros((3, 8, 8, 1), np.uint8)), [(8, 8)] * 3)
    assert found["refused"].tolist() == refused
    assert [reason_of(predictor, row) is not None for row in answers] == refused
