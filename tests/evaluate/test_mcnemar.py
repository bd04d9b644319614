"""The test of two models on the same images."""

from fractions import Fraction
from math import comb

import numpy as np
import pytest
from scipy.stats import binomtest

from jaxnets.evaluate.mcnemar import holm, mcnemar


def answers(both: int, first: int, second: int, neither: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns whether each image is right by the one and by the other, in no order."""
    order = np.random.default_rng(0).permutation(both + first + second + neither)
    a = np.repeat([True, True, False, False], [both, first, second, neither])
    b = np.repeat([True, False, True, False], [both, first, second, neither])
    return a[order], b[order]


TABLES = [(50, 5, 12, 3), (0, 1, 0, 0), (900, 30, 61, 9), (10, 7, 7, 1), (5, 0, 8, 0)]


@pytest.mark.parametrize("table", TABLES)
def test_the_exact_probability_is_the_binomial_test_s(table):
    found = mcnemar(*answers(*table))
    assert (found.both, found.only_first, found.only_second, found.neither) == table
    expected = binomtest(table[1], table[1] + table[2], 0.5).pvalue
    assert found.exact == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("table", TABLES)
def test_mid_p_counts_half_of_what_was_observed(table):
    _, b, c, _ = table
    n, k = b + c, min(b, c)
    below = sum(comb(n, i) for i in range(k))
    expected = min(2 * (Fraction(below, 2**n) + Fraction(comb(n, k), 2 ** (n + 1))), 1)
    assert mcnemar(*answers(*table)).mid_p == pytest.approx(float(expected), rel=1e-9)


def test_it_agrees_with_statsmodels():
    # statsmodels 0.15.0, mcnemar(exact=True) and mcnemar(exact=False, correction=True) on [[900, 30], [61, 9]].
    found = mcnemar(*answers(900, 30, 61, 9))
    assert found.exact == pytest.approx(0.0015165131944572209, rel=1e-9)
    assert found.chi_squared == pytest.approx(0.0016616944579835092, rel=1e-9)


@pytest.mark.parametrize("table", [(7, 0, 0, 0), (0, 0, 0, 7), (1, 0, 0, 0), (4, 0, 0, 2)])
def test_models_that_never_disagree_are_not_told_apart(table):
    found = mcnemar(*answers(*table))
    assert found.exact == found.mid_p == 1
    assert found.chi_squared is None


def test_it_does_not_matter_which_is_the_first():
    first, second = answers(20, 3, 11, 6)
    one, other = mcnemar(first, second), mcnemar(second, first)
    assert (one.exact, one.mid_p) == (other.exact, other.mid_p)
    assert (one.only_first, one.only_second) == (other.only_second, other.only_first)


def test_holm_multiplies_the_smallest_by_the_number_of_tests_and_keeps_the_order():
    # 0.01 × 3, 0.02 × 2, and 0.03 × 1, which must not be less than 0.04.
    assert holm([0.03, 0.01, 0.02]) == pytest.approx([0.04, 0.03, 0.04])
    assert holm([0.9, 0.8]) == [1, 1]
    assert holm([0.2]) == [0.2]
    assert holm([]) == []
