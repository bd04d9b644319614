import numpy as np
import pytest
from sklearn.metrics import precision_recall_curve

from jaxnets.metrics.several_labels import BINS
from jaxnets.metrics.thresholds import best_logit, choose_thresholds

HALF = BINS // 2  # the bin above a logit of 0


def counted(*bins: int) -> np.ndarray:
    """Returns how many scores lie in each bin."""
    return np.bincount(np.array(bins, int), minlength=BINS)


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


def chosen(positive: np.ndarray, negative: np.ndarray) -> float:
    (found,) = choose_thresholds({"positive_scores": positive[None], "negative_scores": negative[None]})
    return float(np.log(found / (1 - found)))


def test_a_threshold_is_the_nearer_to_one_half_the_fewer_images_speak_for_another():
    some, more = counted(HALF + 40), counted(HALF - 80)  # of two kinds of images with the label, and of many without
    others = 2 * counted(HALF - 121) + counted(HALF - 41)
    found = [best_logit(n * (some + more), n * others, cost=0.5) for n in (1, 30)]
    assert found == pytest.approx([0.0, -5.0], abs=0.05)


def test_a_label_that_no_image_has_keeps_one_half_and_so_nearly_does_one_that_is_not_found():
    others = counted(*range(HALF - 100, HALF + 20))
    assert choose_thresholds({"positive_scores": counted()[None], "negative_scores": others[None]}) == (0.5,)
    assert abs(chosen(counted(HALF - 150), others)) < 0.1


def test_one_image_less_moves_a_threshold_by_less_than_it_moves_the_best_one():
    moved: dict[str, list[float]] = {"chosen": [], "best": []}
    for seed in range(10):
        scores = np.random.default_rng(seed).normal([[0.0], [-3.0]], 1.5, (2, 8))
        positive, negative = (counted(*((x + 10) * 20).astype(int)) for x in scores)
        for name, choose in (("chosen", chosen), ("best", best_logit)):
            without = [choose(positive - counted(bin_), negative) for bin_ in np.flatnonzero(positive)]
            moved[name].append(np.ptp(without))
    assert np.mean(moved["chosen"]) < 0.7 * np.mean(moved["best"])


def test_thresholds_are_the_same_for_the_same_counts_in_any_company():
    random = np.random.default_rng(1)
    positive, negative = random.integers(0, 2, (2, 3, BINS))
    together = choose_thresholds({"positive_scores": positive, "negative_scores": negative})
    alone = choose_thresholds({"positive_scores": positive[1:2], "negative_scores": negative[1:2]})
    assert together[1:2] == alone
