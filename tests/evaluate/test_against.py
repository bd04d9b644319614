"""Two models on the same images."""

import re
from dataclasses import replace

import numpy as np
import pytest

from jaxnets.errors import UserError
from jaxnets.evaluate.against import Judged, _different, compare
from jaxnets.evaluate.matching import aligned
from jaxnets.evaluate.weighted import is_right
from tests.evaluate.invented import predictions

NAMES = ("runs/a", "runs/b")


def _shuffled(given, seed=0):
    return given.take(np.random.default_rng(seed).permutation(len(given)))


def test_images_are_matched_by_their_paths_and_not_by_where_they_stand():
    first = predictions()
    found = aligned(first, _shuffled(first), NAMES)
    assert found.paths == first.paths
    np.testing.assert_array_equal(found.logits, first.logits)
    np.testing.assert_array_equal(found.labels, first.labels)


@pytest.mark.parametrize("several", [False, True])
def test_classes_in_another_order_are_the_same_classes(several):
    first = predictions(several=several)
    order = np.array([2, 0, 3, 1])
    labels = first.labels[:, order] if several else np.argsort(order)[first.labels].astype(np.int32)
    names = tuple(first.class_names[i] for i in order)
    found = aligned(first, replace(first, class_names=names, labels=labels, logits=first.logits[:, order]), NAMES)
    assert found.class_names == first.class_names
    np.testing.assert_array_equal(found.logits, first.logits)
    np.testing.assert_array_equal(found.labels, first.labels)


def test_images_that_are_called_the_same_are_matched_one_by_one():
    first = replace(predictions(4), paths=("x", "y", "x", "z"))
    found = aligned(first, first.take(np.array([3, 0, 1, 2])), NAMES)
    np.testing.assert_array_equal(found.logits, first.logits)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda x: replace(x, class_names=("class 0", "class 1", "class 2", "wolf")), "only runs/b has 'wolf'"),
        (lambda x: predictions(60, 3), "have other classes .4 and 3.: only runs/a has 'class 3'"),
        (
            lambda x: x.take(np.arange(50)),
            "60 of test and 50 of test, of which 50 are the same .'a50' is only in runs/a",
        ),
        (lambda x: replace(x, paths=tuple(f"b{i}" for i in range(60))), "of which 0 are the same"),
        (lambda x: replace(x, labels=(x.labels + 1) % 4), "60 of 60 have other labels .'a0' is 'class"),
        (lambda x: predictions(several=True), "runs/a is of one label per image and runs/b of several"),
    ],
    ids=["another class", "fewer classes", "fewer images", "other images", "other labels", "several labels"],
)
def test_what_cannot_be_compared_is_refused(change, said):
    first = predictions()
    with pytest.raises(UserError, match=said):
        aligned(first, change(first), NAMES)


def test_more_images_on_the_second_side_are_refused_too():
    first = predictions()
    with pytest.raises(UserError, match="'a59' is only in runs/b"):
        aligned(first.take(np.arange(59)), first, NAMES)


def test_a_model_is_as_good_as_itself():
    first = Judged(name="a", predictions=predictions())
    (found,) = compare(first, [Judged(name="b", predictions=_shuffled(first.predictions))])
    assert found.p == 1
    assert all(difference == (0, 0, 0) for difference in found.differences.values())
    assert "the same images right" in found.verdict
    assert not len(found.disagreements(True, 9))


def test_a_better_model_is_found_to_be_better_and_where():
    good, bad = predictions(300, skill=3), predictions(300, skill=1)
    (found,) = compare(Judged(name="good", predictions=good), [Judged(name="bad", predictions=_shuffled(bad))])
    accuracy = found.differences["accuracy"]
    right, other = is_right(good), is_right(bad)
    assert accuracy.value == pytest.approx(right.mean() - other.mean())
    assert 0 < accuracy.low < accuracy.value < accuracy.high
    assert found.differences["log_loss"].high < 0
    assert re.match(r"good is better than bad by \d+\.\d\d points of accuracy; chance makes", found.verdict)
    only = found.disagreements(True, 10_000)
    np.testing.assert_array_equal(np.sort(only), np.flatnonzero(right & ~other))
    sure = np.minimum(good.probabilities()[only].max(1), bad.probabilities()[only].max(1))
    assert (np.diff(sure) <= 0).all()


def test_the_paired_interval_is_narrower_than_that_of_two_samples():
    first = predictions(400, seed=1)
    noise = np.random.default_rng(0).normal(0, 0.1, first.logits.shape).astype(np.float32)
    second = replace(first, logits=first.logits + noise)  # nearly the same answers
    (found,) = compare(Judged(name="a", predictions=first), [Judged(name="b", predictions=second)])
    of_each = found.figures["accuracy"][0]
    paired = found.differences["accuracy"]
    assert paired.high - paired.low < 0.6 * (of_each.high - of_each.low)


def test_several_comparisons_are_adjusted_for_their_number():
    first = Judged(name="a", predictions=predictions(200, skill=2.2))
    others = [Judged(name=f"b{i}", predictions=predictions(200, skill=skill)) for i, skill in enumerate((1.5, 2.0))]
    together = compare(first, others)
    alone = [compare(first, [other])[0] for other in others]
    assert min(x.p for x in together) == pytest.approx(min(2 * min(x.p for x in alone), 1))
    assert all(x.test == y.test for x, y in zip(together, alone, strict=True))


def test_the_same_run_twice_has_two_names():
    first = Judged(name="run", predictions=predictions())
    (found,) = compare(first, [first])
    assert (found.first.name, found.second.name) == ("run (1)", "run (2)")


def test_one_image_can_be_compared():
    one = predictions(1)
    (found,) = compare(Judged(name="a", predictions=one), [Judged(name="b", predictions=one)])
    assert found.to_json()["count"] == 1


@pytest.mark.parametrize(
    ("paths", "shown"),
    [
        (["/data/runs/a", "/data/runs/b"], ["a", "b"]),
        (["runs/a", "old/a", "gs://bucket/a"], ["runs/a", "old/a", "bucket/a"]),
        (["a", "/a", "x/a.onnx"], ["a", "/a", "x/a.onnx"]),
        (["a", "b", "a"], ["a (1)", "b", "a (3)"]),
    ],
)
def test_runs_are_called_by_the_shortest_ends_that_tell_them_apart(paths, shown):
    assert _different(paths) == shown
