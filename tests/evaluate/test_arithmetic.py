"""Intervals, calibration, coverage, doubtful labels and the order of classes, each against its formula."""

import numpy as np
import pytest
from scipy.stats import binomtest

from jaxnets.evaluate.confusion import clustered, worst_pairs
from jaxnets.evaluate.intervals import bootstrap_by_group, share_interval, wilson
from jaxnets.evaluate.label_errors import suspects, suspects_of_several
from jaxnets.evaluate.reliability import coverage, reliability


@pytest.mark.parametrize(("successes", "count"), [(0, 1), (1, 1), (0, 50), (50, 50), (7, 11), (9_731, 10_000)])
def test_an_interval_of_a_share_is_wilson_s(successes, count):
    expected = binomtest(successes, count).proportion_ci(method="wilson")
    assert wilson(successes, count) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_groups_whose_images_are_alike_make_the_interval_as_wide_as_of_so_many_images():
    right = np.random.default_rng(0).random(200) < 0.8
    alone = share_interval(right, None)
    groups = np.repeat([f"patient {i}" for i in range(200)], 25)
    together = share_interval(np.repeat(right, 25), groups)
    assert together["method"] == "bootstrap by group"
    assert together["groups"] == 200
    assert together["high"] - together["low"] == pytest.approx(alone["high"] - alone["low"], rel=0.1)
    assert wilson(int(right.sum()) * 25, 5000).high - wilson(int(right.sum()) * 25, 5000).low < 0.3 * (
        together["high"] - together["low"]
    )


def test_groups_of_one_image_each_and_one_group_of_all_have_wilson_s_interval():
    right = np.array([True, False, True, True])
    for groups in (np.array(list("abcd")), np.array(["a"] * 4)):
        assert share_interval(right, groups) == share_interval(right, None)


def test_the_bootstrap_of_equal_groups_is_that_of_their_means():
    values = np.array([0.0, 1.0, 1.0, 1.0, 0.0, 0.0])
    low, high = bootstrap_by_group(values, np.array(list("aabbcc")))
    assert (low, high) == (0.0, 1.0)


def test_calibration_errors_are_those_of_the_formula():
    random = np.random.default_rng(1)
    confidence, right = random.random(500).astype(np.float32), random.random(500) < 0.6
    found, gaps, weights = reliability(confidence, right), [], []
    for i in range(15):
        inside = (confidence > i / 15) & (confidence <= (i + 1) / 15)
        if inside.any():
            gaps.append(abs(right[inside].mean() - confidence[inside].astype(float).mean()))
            weights.append(inside.mean())
    assert found.expected_error == pytest.approx(np.dot(gaps, weights), abs=1e-9)
    assert found.maximal_error == pytest.approx(max(gaps), abs=1e-9)
    assert found.count.sum() == 500


def test_a_model_that_is_surely_right_is_calibrated_and_one_that_is_surely_wrong_is_not():
    assert reliability(np.ones(3, np.float32), np.ones(3, bool)).expected_error == 0
    assert reliability(np.ones(3, np.float32), np.zeros(3, bool)).expected_error == 1
    assert reliability(np.zeros(2, np.float32), np.zeros(2, bool)).maximal_error == 0


def test_coverage_gives_answers_of_equal_confidence_together():
    found = coverage(np.float32([0.9, 0.5, 0.9, 0.7]), np.array([True, False, False, True]))
    np.testing.assert_allclose(found.share, [0.5, 0.75, 1])
    np.testing.assert_allclose(found.accuracy, [0.5, 2 / 3, 0.5])
    assert found.share_at(0.6) == 0.75
    assert found.share_at(0.9) == 0
    assert found.area == pytest.approx(0.5 * 0.5 + 0.25 / 3 + 0.25 * 0.5)


def test_a_label_that_a_class_claims_more_than_its_own_is_doubted_as_confident_learning_does():
    """Re-stated from Northcutt et al. 2021, equations 1 and 2, image by image."""
    random = np.random.default_rng(2)
    labels = random.integers(0, 4, 120).astype(np.int32)
    z = random.normal(0, 1, (120, 4)) + 3 * np.eye(4)[labels]
    z[:7] = 4 * np.eye(4)[(labels[:7] + 1) % 4]
    p = (np.exp(z) / np.exp(z).sum(1, keepdims=True)).astype(np.float32)
    usual = [p[labels == j, j].mean() for j in range(4)]
    expected = set()
    for i in range(120):
        claimed = [j for j in range(4) if p[i, j] >= usual[j]]
        best = max(claimed, key=lambda j: p[i, j], default=labels[i])
        if best != labels[i] and p[i, best] > p[i, labels[i]]:
            expected.add((i, best))
    found = suspects(p, labels)
    assert set(zip(found.example.tolist(), found.other.tolist(), strict=True)) == expected
    assert set(range(7)) <= set(found.example.tolist())
    assert (np.diff(found.margin) <= 0).all()


def test_of_one_class_only_no_label_is_doubted():
    p = np.float32([[0.9, 0.1], [0.2, 0.8]])
    assert not len(suspects(p, np.zeros(2, np.int32)).example)
    assert not len(suspects_of_several(p, np.ones((2, 2), bool)).example)


def test_of_several_labels_one_that_is_missing_and_one_too_many_are_doubted():
    has = np.array([[1, 0], [1, 0], [0, 1], [0, 1], [0, 0], [1, 1]], bool)
    p = np.float32([[0.9, 0.1], [0.8, 0.2], [0.1, 0.9], [0.2, 0.8], [0.99, 0.1], [0.9, 0.01]])
    found = suspects_of_several(p, has)
    assert set(zip(found.example.tolist(), found.label.tolist(), strict=True)) == {(4, 0), (5, 1)}


def test_classes_that_are_confused_lie_side_by_side():
    matrix = np.diag([50] * 6)
    for a, b in ((0, 3), (1, 5), (2, 4)):
        matrix[a, b] = matrix[b, a] = 20
    order = clustered(matrix).tolist()
    assert sorted(order) == list(range(6))
    for a, b in ((0, 3), (1, 5), (2, 4)):
        assert abs(order.index(a) - order.index(b)) == 1


@pytest.mark.parametrize("classes", [1, 2, 3, 300])
def test_any_number_of_classes_has_an_order(classes):
    matrix = np.random.default_rng(0).integers(0, 2, (classes, classes))
    assert sorted(clustered(matrix).tolist()) == list(range(classes))
    assert sorted(clustered(np.zeros_like(matrix)).tolist()) == list(range(classes))


def test_the_worst_pairs_come_first_and_of_equal_ones_that_of_the_rarer_class():
    matrix = np.array([[5, 3, 0], [0, 90, 3], [1, 0, 9]])
    assert [(p.true, p.said, p.count) for p in worst_pairs(matrix, 2)] == [(0, 1, 3), (1, 2, 3)]
    assert not worst_pairs(np.diag([3, 4]), 5)
