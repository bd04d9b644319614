"""Bounds keep what they promise on images that they were not chosen on."""

import math

import numpy as np
import pytest
from scipy.stats import beta, binom

from jaxnets.errors import UserError
from jaxnets.trust.bounds import at_least, for_coverage, for_precision, interval, upper
from jaxnets.trust.conformal import fit_quantile, prediction_set, sizes_and_hits


def answers(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns confidences, and answers that are right as often as these are high: 75 % altogether."""
    random = np.random.default_rng(seed)
    confidences = random.uniform(0.5, 1, n)
    return confidences, random.uniform(size=n) < confidences


@pytest.mark.parametrize(("right", "count"), [(0, 7), (7, 7), (3, 10), (95, 100), (0, 0)])
def test_the_interval_is_clopper_and_pearson_s(right, count):
    low, high = interval(right, count)
    assert low == pytest.approx(beta.ppf(0.025, right, count - right + 1) if right else 0)
    assert high == pytest.approx(beta.ppf(0.975, right + 1, count - right) if right < count else 1)
    if right:
        # At the one-sided bound, so many or more are right as seldom as the risk says.
        assert binom.sf(right - 1, count, at_least(right, count, 0.05)) == pytest.approx(0.05)


def test_a_promised_precision_is_broken_as_seldom_as_promised():
    broken, answered = 0, []
    for seed in range(200):
        confidences, right = answers(1000, seed)
        try:
            chosen = for_precision(confidences, right, 0.85)
        except UserError:  # of an unlucky sample nothing is promised
            answered.append(0)
            continue
        # The precision above a bound t is the mean of U(t, 1).
        broken += (chosen.bound + 1) / 2 < 0.85
        answered.append(chosen.answered)
        assert chosen.at_least >= 0.85
        assert chosen.answered == (confidences >= chosen.bound).sum()
    assert broken <= 10  # 5 %
    assert np.mean(answered) > 350  # of 600 that could be, had one known
    assert answered.count(0) <= 10


def test_a_good_model_may_answer_all_images_where_few_are_held_out():
    right = np.arange(129) != 100
    chosen = for_precision(np.linspace(0.99, 0.6, 129), right, 0.95)
    assert (chosen.bound, chosen.answered, chosen.right) == (0, 129, 128)
    assert chosen.at_least == pytest.approx(beta.ppf(0.025, 128, 2))
    broken = 0  # how often all images of a model are answered whose precision is a little too low
    for seed in range(300):
        random = np.random.default_rng(seed)
        try:
            for_precision(random.uniform(size=129), random.uniform(size=129) < 0.945, 0.95)
        except UserError:
            continue
        broken += 1
    assert broken <= 15


def test_a_bound_of_equal_confidences_answers_all_of_them_or_none():
    confidences = np.repeat([0.9, 0.6], 200)
    right = np.arange(400) % 2 == 1
    right[:200] = True
    chosen = for_precision(confidences, right, 0.95)
    assert (chosen.answered, chosen.right, chosen.bound) == (200, 200, pytest.approx(0.75))


def test_a_precision_that_cannot_be_promised_says_what_could_be():
    confidences, right = answers(1000, 0)
    with pytest.raises(UserError, match=r"0\.999 cannot be promised.*at least \d+ are needed"):
        for_precision(confidences, right, 0.999)
    with pytest.raises(UserError, match=r"surest of 1000 held-out images.*promises 0\.\d+ with 95%") as refused:
        for_precision(confidences, np.zeros(1000, bool) | (np.arange(1000) % 2 == 0), 0.95)
    assert "Ask for that or less" in str(refused.value)


def test_a_coverage_is_kept_on_the_average():
    shares = []
    for seed in range(300):
        confidences, right = answers(99, seed)
        chosen = for_coverage(confidences, right, 0.9)
        shares.append(2 * (1 - chosen.bound))  # of U(½, 1)
    assert 0.9 <= np.mean(shares) <= 0.91  # a bound lies between two images


def test_a_coverage_that_others_leave_no_room_for_is_refused():
    confidences, right = answers(90, 0)
    assert for_coverage(confidences, right, 0.85, 100).answered == math.ceil(101 * 0.85)
    with pytest.raises(UserError, match="of 100 held-out images 10 are refused as unlike"):
        for_coverage(confidences, right, 0.95, 100)


def test_an_upper_bound_is_exceeded_on_the_average_as_often_as_it_says():
    random = np.random.default_rng(0)
    bounds = [upper(random.uniform(size=199), 0.95) for _ in range(500)]
    assert np.mean(bounds) == pytest.approx(0.95, abs=0.004)
    assert upper(np.arange(10.0), 0.99) > 9  # beyond all: there are too few for a quantile


def probabilities(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    p = random.dirichlet(np.full(6, 0.4), n)
    labels = (np.log(p) + random.gumbel(size=p.shape)).argmax(1)
    sharp = p**3 / (p**3).sum(1, keepdims=True)  # far too sure
    return sharp.astype(np.float32), labels


def test_sets_cover_as_promised_even_of_a_model_that_is_too_sure():
    covered, uncovered = [], []
    for seed in range(100):
        p, labels = probabilities(1000, seed)
        quantile = fit_quantile(p[:400], labels[:400], 0.9)
        covered.append(sizes_and_hits(p[400:], labels[400:], quantile)[1].mean())
        own = p[400:][np.arange(600), labels[400:]]
        uncovered.append((own >= 1 - quantile).mean())  # without the most probable class, which may cover more
    assert np.mean(covered) >= 0.9
    assert np.mean(uncovered) == pytest.approx(0.9, abs=0.006)


def test_a_set_holds_the_probable_classes_in_order_and_is_never_empty():
    assert prediction_set(np.array([0.2, 0.5, 0.3]), 0.75) == [1, 2]
    assert prediction_set(np.array([0.2, 0.5, 0.3]), 0.1) == [1]
    assert prediction_set(np.array([0.2, 0.5, 0.3]), 1.0) == [1, 2, 0]


def test_too_few_images_for_a_coverage_are_refused():
    p, labels = probabilities(50, 0)
    with pytest.raises(UserError, match=r"0\.99 need at least 99 held-out images, and there are 50"):
        fit_quantile(p, labels, 0.99)
    p, labels = probabilities(99, 0)
    assert 0 < fit_quantile(p, labels, 0.99) <= 1
