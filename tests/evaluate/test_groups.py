"""Figures by group, and the gaps between groups."""

import numpy as np
import pytest
from sklearn import metrics

from jaxnets.errors import UserError
from jaxnets.evaluate.groups import SMALL, by_group, in_ranges
from tests.evaluate.invented import predictions


def _values(sizes: dict[str, int], seed: int = 0) -> list[str]:
    names = np.repeat(list(sizes), list(sizes.values()))
    return np.random.default_rng(seed).permutation(names).tolist()


def test_each_group_has_the_figures_of_its_images():
    given, values = predictions(200, 5), _values({"x": 120, "y": 80})
    found = by_group(given, values, "sex", resamples=50)
    assert [(group.name, group.count) for group in found.groups] == [("x", 120), ("y", 80)]
    for group in found.groups:
        members = np.array(values) == group.name
        labels, said = given.labels[members], given.said[members]
        assert group.figures["accuracy"].value == pytest.approx((labels == said).mean())
        f1 = metrics.f1_score(labels, said, average="macro", labels=np.arange(5))
        assert group.figures["macro_f1"].value == pytest.approx(f1)
        for interval in group.figures.values():
            assert interval.low - 0.1 <= interval.value <= interval.high + 0.1


def test_a_gap_that_is_there_is_found_and_its_sign_is_that_of_the_better_group():
    values = np.array(_values({"x": 150, "y": 150}))
    given = predictions(300, skill=2)
    logits = given.logits.copy()
    logits[values == "y"] = np.random.default_rng(1).normal(size=logits.shape)[values == "y"]  # guessed
    found = by_group(predictions(300, skill=2, logits=logits), values.tolist(), "site", resamples=200)
    gap = found.gaps["accuracy"]
    assert (gap.best, gap.worst) == ("x", "y")
    assert gap.difference.low > 0.2
    assert gap.p < 0.01
    assert found.gaps["log_loss"].best == "x"
    assert found.gaps["log_loss"].difference.low > 0


def test_groups_that_were_drawn_blindly_have_a_gap_that_chance_makes():
    found = by_group(predictions(400), _values(dict.fromkeys("abcdefghij", 40)), "site", resamples=50)
    assert found.gaps["accuracy"].difference.value > 0.05  # the best and the worst of ten
    assert found.gaps["accuracy"].p > 0.05


def test_small_groups_are_marked_and_make_no_gap():
    found = by_group(predictions(200), _values({"x": 100, "y": 100 - SMALL + 1, "z": SMALL - 1}), "site", resamples=50)
    assert [group.name for group in found.groups if group.small] == ["z"]
    assert all("z" not in (gap.best, gap.worst) for gap in found.gaps.values())


def test_one_group_has_figures_and_no_gap():
    found = by_group(predictions(50), ["x"] * 50, "site", resamples=20)
    assert found.gaps == {}
    assert found.groups[0].figures["accuracy"].value == pytest.approx(found.together["accuracy"])


def test_images_without_a_value_are_a_group_of_their_own():
    found = by_group(predictions(50), ["", " "] * 10 + ["x"] * 30, "site", resamples=20)
    assert {group.name: group.count for group in found.groups} == {"x": 30, "(none)": 20}


def test_a_group_where_all_is_right_has_an_interval_below_one():
    found = by_group(predictions(40, skill=30), _values({"x": 20, "y": 20}), "site", resamples=20)
    assert all(group.figures["accuracy"].value == 1 and group.figures["accuracy"].low < 0.9 for group in found.groups)


def test_units_that_are_all_right_leave_as_much_open_as_there_are_few_of_them():
    given = predictions(40, skill=30, groups=np.repeat(["p", "q", "r", "s"], 10))
    found = by_group(given, np.repeat(["x", "y"], 20).tolist(), "site", resamples=20)
    assert all(group.figures["accuracy"].low == pytest.approx(2 / (2 + 1.96**2), abs=1e-3) for group in found.groups)


def test_a_column_that_names_each_image_is_refused():
    with pytest.raises(UserError, match="'id' has another value for each image"):
        by_group(predictions(30), [f"i{i}" for i in range(30)], "id")


def test_the_same_seed_gives_the_same_intervals():
    given, values = predictions(100, several=True), _values({"x": 50, "y": 50})
    one, two = (by_group(given, values, "site", resamples=30, seed=5).to_json() for _ in range(2))
    assert one == two


def test_numbers_of_many_values_become_ranges_of_as_many_images():
    ages = [str(age) for age in range(20, 60)]
    found = in_ranges([*ages, "", " 21.5"])
    assert set(found) == {"20 … 29", "30 … 39", "40 … 49", "50 … 59", ""}
    assert found[:3] == ["20 … 29"] * 3
    assert found[-2:] == ["", "20 … 29"]
    for values in (["1", "2", "3"] * 20, [f"p{i}" for i in range(40)], [*ages, "old"]):
        assert in_ranges(values) == values
    assert len(set(in_ranges(["7"] * 100 + ages))) <= 4
