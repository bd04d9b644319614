import numpy as np
import pytest
from sklearn.metrics import precision_recall_curve

from jaxnets.metrics.several_labels import BINS
from jaxnets.metrics.thresholds import best_logit, choose_thresholds

HALF = BINS // 2  # the bin above a logit of 0


def counted(*bins: int) -> np.ndarray:
    """Returns how many scores lie in each bin."""
    return np.bincount(bins, minlength=BINS)


def f1_above(logit: float, positive: np.ndarray, negative: np.ndarray) -> float:
    above = np.arange(BINS) * 0.05 - 10 > logit - 0.01
    true, false = positive[above].sum(), negative[above].sum()
    return 2 * true / (true + false + positive.sum())


@pytest.mark.parametrize("seed", range(20))
def test_no_threshold_of_scikit_learn_s_curve_has_a_higher_f1(seed):
    random = np.random.default_rng(seed)
    labels = random.random(int(random.integers(5, 200))) < random.uniform(0.02, 0.9)
    labels[0] = True
    scores = random.normal(2 * labels - 1.5, 1.5)
    bins = np.floor(scores * 20).clip(-HALF, HALF - 1).astype(int) + HALF
    positive, negative = counted(*bins[labels]), counted(*bins[~labels])
    precision, recall, _ = precision_recall_curve(labels, bins)
    highest = np.max(2 * precision * recall / np.maximum(precision + recall, 1e-12))
    found = best_logit(positive, negative)
    assert f1_above(found, positive, negative) == pytest.approx(highest, abs=1e-12)


@pytest.mark.parametrize(
    ("positive", "negative", "expected"),
    [
        ([HALF + 60, HALF + 80], [HALF + 19, HALF - 5], 2.0),  # the middle of what lies between 1.0 and 3.0
        ([HALF - 80, HALF - 50], [HALF - 101], -4.5),  # likewise of −5.0 and −4.0
        ([HALF + 40, HALF + 50], [], 0.0),  # nothing lies below: one half is as good as any other
        ([HALF - 40, HALF + 50], [], -2.0),  # and where it is not, the nearest that is
        ([HALF + 100, HALF - 120], [HALF - 100, HALF + 80], 4.525),  # as much above 4.05…5.0 as below −6.0
        ([], [HALF + 10], 0.0),
    ],
)
def test_of_equally_good_thresholds_it_is_the_middle_of_the_stretch_nearest_to_one_half(positive, negative, expected):
    assert best_logit(counted(*positive), counted(*negative)) == pytest.approx(expected, abs=0.03)


def test_a_threshold_is_the_nearer_to_one_half_the_fewer_images_speak_for_another():
    negative = counted(HALF + 19)
    count = [0, 1, 9, 99]
    positive = np.stack([n * counted(HALF + 60) for n in count])
    found = choose_thresholds({"positive_scores": positive, "negative_scores": np.stack([negative] * len(count))})
    logits = np.log(np.array(found) / (1 - np.array(found)))
    np.testing.assert_allclose(logits, [0, 1.0, 1.8, 1.98], atol=0.001)
    assert found[0] == 0.5
