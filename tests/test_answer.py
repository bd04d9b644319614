"""What is said of an image, from its probabilities."""

import math

import numpy as np
import pytest

from jaxnets.answer import as_json, listed, read_thresholds, said, shown_first, thresholds_of
from jaxnets.errors import UserError
from tests.tiny import classifier

ROW = np.array([0.2, 0.7, 0.5, 0.9, 0.4], np.float32)
TAGS = classifier(activation="sigmoid", several_labels=True, thresholds=(0.1, 0.7, 0.45, 0.95, 0.4))


def test_a_label_is_said_above_its_own_threshold_and_not_at_it():
    assert said(TAGS, ROW) == [2, 0]
    assert TAGS.labels_of(ROW) == [("class 2", "class 0")]


def test_without_thresholds_it_is_above_one_half():
    plain = classifier(activation="sigmoid", several_labels=True)
    assert said(plain, ROW) == [3, 1]
    assert thresholds_of(plain) == (0.5,) * 5


def test_an_answer_may_be_empty_and_is_called_none():
    assert TAGS.labels_of(np.zeros((2, 5), np.float32)) == [(), ()]
    assert listed(()) == "none"
    assert as_json(TAGS, np.zeros(5, np.float32), 1)["labels"] == []


@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
def test_a_model_of_one_label_says_the_most_probable_one_however_improbable(activation):
    made = classifier(activation=activation)
    assert made.labels_of(np.array([[0.1, 0.3, 0.3, 0.2, 0.1], [0, 0, 0, 0, 1]], np.float32)) == [
        ("class 1",),
        ("class 4",),
    ]
    assert thresholds_of(made) is None
    assert "labels" not in as_json(made, ROW, 2)


def test_what_is_said_is_named_with_its_probability_whatever_top_asks_for():
    found = as_json(TAGS, ROW, 1)
    assert [row["label"] for row in found["labels"]] == ["class 2", "class 0"]
    assert found["labels"][1]["probability"] == pytest.approx(0.2)
    assert [row["label"] for row in found["top"]] == ["class 3"]


def test_what_is_said_is_shown_before_what_is_more_probable():
    assert shown_first(TAGS, ROW, 3) == [2, 0, 3]
    assert shown_first(TAGS, ROW, 1) == [2, 0]


def test_probabilities_of_other_classes_are_refused():
    with pytest.raises(ValueError, match=r"expected probabilities \[n, 5\]"):
        TAGS.labels_of(np.zeros((1, 4)))


@pytest.mark.parametrize(
    ("saved", "expected"),
    [
        ([0.5, 0.5], "a threshold for each of its 3 classes, found 2"),
        ([0.5, 0.5, 1.5], "probabilities from 0 to 1"),
        ([0.5, 0.5, math.nan], "probabilities from 0 to 1"),
        ([0.5, 0.5, "0.5"], "probabilities from 0 to 1"),
        ([0.5, 0.5, True], "probabilities from 0 to 1"),
        ({"a": 0.5}, "probabilities from 0 to 1"),
        (0.5, "probabilities from 0 to 1"),
    ],
)
def test_thresholds_that_are_none_are_refused(saved, expected):
    with pytest.raises(UserError, match=expected):
        read_thresholds(saved, 3)
