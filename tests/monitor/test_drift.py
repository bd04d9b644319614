"""What the tests find: against closed forms, and how often they err where nothing has changed."""

import numpy as np
import pytest
from scipy import stats

from jaxnets.errors import UserError
from jaxnets.monitor import embeddings
from jaxnets.monitor.drift import chi_squared, class_index, distances, kolmogorov_smirnov, stability_index
from jaxnets.monitor.gauges import gauges
from jaxnets.monitor.judge import Bounds, judge
from jaxnets.monitor.page import page
from tests.monitor.made import records


@pytest.fixture(autouse=True)
def few_permutations(monkeypatch):
    monkeypatch.setattr(embeddings, "_PERMUTATIONS", 999)
    monkeypatch.setattr(embeddings, "MOST", 200)


def test_the_kolmogorov_smirnov_statistic_is_the_largest_gap():
    assert kolmogorov_smirnov(np.arange(10.0), np.arange(10.0) + 3).statistic == pytest.approx(0.3)
    assert kolmogorov_smirnov(np.full(50, 28.0), np.full(70, 28.0)).p == 1


def test_wasserstein_is_in_deviations_of_the_reference():
    x = np.random.default_rng(0).normal(0, 5, 1000)
    assert distances(x, x + 10).wasserstein == pytest.approx(10 / x.std())
    assert distances(np.full(9, 3.0), np.full(9, 5.0)).wasserstein == 2


def test_the_stability_index_is_that_of_its_definition():
    reference, window = np.arange(1000.0), np.concatenate([np.arange(500.0), np.arange(500.0)])
    p, q = np.full(10, 100.5 / 1005), np.repeat([200.5 / 1005, 0.5 / 1005], 5)
    assert stability_index(reference, window) == pytest.approx(((q - p) * np.log(q / p)).sum())
    assert stability_index(reference, reference) == 0


def test_the_stability_index_of_equal_values_sees_that_they_are_others():
    same = np.full(100, 28.0)
    assert stability_index(same, same) == 0
    assert stability_index(same, same - 1) > 1
    assert stability_index(same, same + 1) > 1
    assert class_index(np.array([50, 50]), np.array([5, 5])) == pytest.approx(0, abs=1e-9)


def test_chi_squared_is_that_of_scipy_and_counts_rare_classes_as_one():
    first, second = np.array([500, 300, 200]), np.array([40, 40, 20])
    expected = stats.chi2_contingency(np.stack([first, second]), correction=False)
    found = chi_squared(first, second)
    assert (found.statistic, found.p) == pytest.approx((expected.statistic, expected.pvalue))
    assert found.effect == pytest.approx(0.1)
    rare = chi_squared(np.array([500, 300, 200, 1, 0, 2]), np.array([40, 40, 20, 0, 0, 1]))
    expected = stats.chi2_contingency([[500, 300, 200, 3], [40, 40, 20, 1]], correction=False)
    assert rare.statistic == pytest.approx(expected.statistic)
    assert chi_squared(np.array([9, 0]), np.array([9, 0])) is None


def test_a_class_that_is_new_in_the_window_is_seen():
    assert chi_squared(np.array([1000, 1000, 0]), np.array([80, 80, 40])).p < 1e-9


@pytest.mark.parametrize("test", [embeddings.discrepancy, embeddings.classifier_test])
def test_tests_of_embeddings_err_as_often_as_they_say(test):
    random = np.random.default_rng(0)
    p = [test(random.normal(size=(150, 4)), random.normal(size=(100, 4)), seed).p for seed in range(60)]
    assert stats.kstest(p, "uniform").pvalue > 0.01


@pytest.mark.parametrize("test", [embeddings.discrepancy, embeddings.classifier_test])
def test_tests_of_embeddings_see_a_mean_and_a_covariance(test):
    random = np.random.default_rng(0)
    x = random.normal(size=(400, 4))
    turned = random.normal(size=(400, 4))
    turned[:, 1] = 0.95 * turned[:, 0] + np.sqrt(1 - 0.95**2) * turned[:, 1]
    assert test(x, random.normal(size=(400, 4)) + 0.5).p < 0.002
    assert test(x, turned).p < 0.01


def test_the_discrepancy_is_that_of_its_definition():
    random = np.random.default_rng(0)
    x, y = random.normal(size=(20, 3)), random.normal(size=(15, 3)) + 1
    z = np.concatenate([x, y])
    squares = ((z[:, None] - z[None]) ** 2).sum(-1)
    kernel = np.exp(-squares / np.median(squares[np.triu_indices(35, 1)]))
    expected = kernel[:20, :20].mean() + kernel[20:, 20:].mean() - 2 * kernel[:20, 20:].mean()
    # The samples are not drawn from: they are smaller than that.
    assert embeddings.discrepancy(x, y).statistic == pytest.approx(expected, rel=1e-4)


def test_a_dimension_that_never_varies_is_left_out_unless_it_does_in_the_window():
    x = np.random.default_rng(0).normal(size=(50, 3))
    x[:, 1] = 7
    assert embeddings.scaled(x, x)[0].shape == (50, 2)
    y = x.copy()
    y[0, 1] = 9
    assert embeddings.scaled(x, y)[0].shape == (50, 3)


def test_windows_like_the_reference_raise_no_alarm():
    reference = records(600)
    assert [judge(reference, records(200, seed)).crossed for seed in range(1, 16)] == [()] * 15


@pytest.mark.parametrize(
    ("changed", "by"),
    [
        ({"confidence": -0.2}, "confidence"),
        ({"energy": 2.0}, "energy"),
        ({"brightness": 0.15}, "brightness"),
        ({"sharpness": -0.03}, "sharpness"),
        ({"width": 100}, "size"),
        ({"width": 100}, "aspect"),
        ({"label": 1}, "classes"),
        ({"refused": True}, "classes"),
        ({"projection": 0.6}, "embedding_mmd"),
        ({"projection": 0.6}, "embedding_classifier"),
    ],
)
def test_each_change_is_found_by_its_test(changed, by):
    assert by in judge(records(600), records(200, 1, **changed)).crossed


def test_a_difference_that_is_too_small_to_matter_is_no_drift():
    reference, window = records(20_000), records(20_000, 1, brightness=0.012)
    found = {test.name: test for test in judge(reference, window).tests}["brightness"]
    assert found.adjusted < 0.01
    assert not found.drifts
    assert "brightness" in judge(reference, window, Bounds(effect=0.0)).crossed


def test_values_that_are_no_numbers_are_left_out_with_a_note():
    window = records(200, 1)
    window.rows["energy"][:7] = np.inf
    window.rows["projection"][3] = np.nan
    found = judge(records(600), window)
    assert "7 records have no finite energy, and are left out there" in found.notes
    assert found.crossed == ()
    window.rows["energy"] = np.nan
    assert "energy" not in {test.name for test in judge(records(600), window).tests}


def test_too_few_records():
    with pytest.raises(UserError, match="the window has 99 records, and 100 are needed"):
        judge(records(600), records(99))
    with pytest.raises(UserError, match="the reference has 99 records, and 100 are needed"):
        judge(records(99), records(600))


@pytest.mark.parametrize("bounds", [{"alpha": 0.0}, {"alpha": 1.0}, {"effect": -1.0}, {"least_records": 3}])
def test_bounds_that_are_none(bounds):
    with pytest.raises(UserError):
        Bounds(**bounds)


def test_page_and_gauges_escape_the_names_of_classes_and_models():
    reference, window = records(200), records(200, 1)
    window = type(window)(about=type(window.about)(**{**vars(window.about), "model": '<b>"x'}), rows=window.rows)
    found = judge(reference, window)
    assert "<b>&quot;" not in page(found)
    assert "&lt;b&gt;" in page(found)
    assert 'jaxnets_drift{model="<b>\\"x"} 0' in gauges(found)
    assert 'jaxnets_window_records{model="<b>\\"x"} 200' in gauges(found)
