"""Two models compared by their records: what is said, how often it errs, and what the command does with mistakes."""

import json
import sys

import numpy as np
import pytest

from jaxnets.errors import UserError
from jaxnets.monitor import __main__ as command
from jaxnets.monitor.ab.compare import Bounds, compare, looks_at_pairs, looks_of
from jaxnets.monitor.ab.sequential import Looks, always_valid_p, half_width, variance_of
from jaxnets.monitor.records import Records
from tests.monitor.made import CLASSES, about, rows, write


def answered(name, count, accuracy, seed, first=1, every=1.0):
    """Returns records of a model that is right about that often, numbered from some number on."""
    random = np.random.default_rng(seed)
    found = rows(count, seed)
    found["id"] = first + np.arange(count)
    found["time"] = 1.7e9 + every * np.arange(count)
    found["truth"] = np.where(random.random(count) < accuracy, found["label"], (found["label"] + 1) % 3)
    return Records(about=about(model=name), rows=found)


def measures(comparison):
    return {one.name: one for one in comparison.measures}


# The mathematics


def looks(difference, variance):
    difference, variance = np.asarray(difference, float), np.asarray(variance, float)
    return Looks(difference=difference, variance=variance, enough=np.ones(difference.shape, bool))


def test_the_ratio_is_that_of_the_paper_for_two_streams_of_equal_length():
    n, deviation, effect, difference = 400, 0.3, 0.02, 0.05
    ratio = np.sqrt(2 * deviation**2 / (2 * deviation**2 + n * effect**2)) * np.exp(
        n**2 * effect**2 * difference**2 / (4 * deviation**2 * (2 * deviation**2 + n * effect**2))
    )
    assert always_valid_p(looks([difference], [2 * deviation**2 / n]), effect) == pytest.approx([1 / ratio], rel=1e-9)


def test_the_probability_never_grows_and_the_interval_holds_what_is_not_refused():
    found = looks([0.05, 0.0, 0.05], [1e-4, 1e-4, 1e-4])
    p = always_valid_p(found, 0.02)
    assert p[0] == p[1] == p[2] < 0.05
    half = half_width(found, 0.02, 0.05)[0]
    assert always_valid_p(looks([half], [1e-4]), 0.02) == pytest.approx([0.05], rel=1e-9)


def test_a_variance_is_that_of_numpy_with_two_values_more():
    values = np.random.default_rng(0).random(50)
    found = variance_of(values.sum(), (values**2).sum(), np.array(50), -1)
    assert found == pytest.approx(np.var([*values, -1, 1]), rel=1e-9)


@pytest.mark.parametrize("kind", ["samples", "pairs"])
def test_who_looks_at_every_100_errs_no_more_often_than_alpha(kind):
    random, ends = np.random.default_rng(0), np.arange(100, 3001, 100)
    a, b = (random.random((400, 3000)) < 0.9 for _ in range(2))
    a, b = a.astype(float), b.astype(float)
    found = looks_at_pairs(b - a, Bounds()) if kind == "pairs" else looks_of(a, b, ends, ends)
    alarms = (always_valid_p(found, 0.02)[:, -1] <= 0.05).mean()
    ordinary = (np.abs(found.difference) > 1.96 * np.sqrt(found.variance)).any(1).mean()
    assert alarms <= 0.05 < ordinary
    worse = (random.random((400, 3000)) < 0.8).astype(float)
    found = looks_at_pairs(worse - a, Bounds()) if kind == "pairs" else looks_of(a, worse, ends, ends)
    assert (always_valid_p(found, 0.02)[:, -1] <= 0.05).mean() > 0.99


# What is compared


def test_a_model_that_is_right_less_often_is_found():
    found = compare(answered("a", 3000, 0.9, 0), answered("b", 3000, 0.8, 1, first=10_000))
    assert found.paired == 0
    assert "accuracy" in found.differing
    one = measures(found)["accuracy"]
    difference = one.b - one.a
    assert one.interval.low < difference < one.interval.high < 0
    assert one.always.low < one.interval.low < one.interval.high < one.always.high < 0


def test_models_that_are_alike_do_not_differ():
    found = compare(answered("a", 3000, 0.9, 0), answered("b", 300, 0.9, 1, first=10_000, every=10.0))
    assert found.differing == ()
    assert set(measures(found)) == {"accuracy", "unsure", "confidence"}


def test_images_that_both_answered_are_compared_one_by_one():
    a = answered("a", 2000, 0.9, 0)
    b = Records(about=about(model="b"), rows=a.rows.copy()[::-1])  # whatever the order
    places = np.flatnonzero(b.rows["truth"] == b.rows["label"])[::45]
    b.rows["truth"][places] = (b.rows["label"][places] + 1) % 3
    found = compare(a, b)
    assert found.paired == 2000
    assert found.differing == ("accuracy",)
    assert measures(found)["confidence"].p == 1
    b.rows["id"] += 10_000  # as two samples, so little is not seen
    assert compare(a, b).differing == ()


def test_a_few_images_that_both_answered_count_once():
    a, b = answered("a", 2000, 0.9, 0), answered("b", 500, 0.9, 1, first=1901)
    found = compare(a, b)
    assert (found.paired, measures(found)["accuracy"].counts) == (0, (1900, 500))
    assert "100 images that both answered" in found.notes[0]


def test_refusals_and_unsure_answers_are_shares():
    a, b = answered("a", 1000, 0.9, 0), answered("b", 1000, 0.9, 1, first=10_000)
    b.rows["refused"][:300] = True
    b.rows["confidence"][:500] = 0.2
    found = measures(compare(a, b))
    assert (found["refused"].a, found["refused"].b) == (0, 0.3)
    assert found["unsure"].b > 0.45
    assert {"refused", "unsure", "confidence"} == set(compare(a, b).differing)


def test_without_labels_the_accuracy_is_left_out():
    a, b = (Records(about=about(model=name), rows=rows(500, seed)) for name, seed in (("a", 0), ("b", 1)))
    b.rows["id"] += 1000
    found = compare(a, b)
    assert "accuracy" not in measures(found)
    assert "0 and 0 records have a label" in found.notes[0]


@pytest.mark.parametrize(
    ("b", "says"),
    [
        (Records(about=about(model="b", labels=("x", "y")), rows=rows(500)[:0]), "the same classes"),
        (Records(about=about(model="b", several_labels=True), rows=rows(500)), "the same classes"),
        (Records(about=about(model="b"), rows=rows(99)), "b has 99 records to compare|99 records"),
    ],
)
def test_what_cannot_be_compared(b, says):
    with pytest.raises(UserError, match=says):
        compare(answered("a", 500, 0.9, 0), b)


@pytest.mark.parametrize("changed", [{"alpha": 0}, {"alpha": 1}, {"effect": -0.1}, {"low": float("nan")}, {"every": 0}])
def test_bounds_that_are_none(changed):
    with pytest.raises(UserError, match=f"--{next(iter(changed))} must be"):
        Bounds(**changed)


# The command


@pytest.fixture
def log(tmp_path):
    for name, accuracy, seed in (("old", 0.9, 0), ("new", 0.7, 1)):
        found = answered(name, 1500, accuracy, seed, first=1 + 10_000 * seed)
        lines = [f"{i:016x},{CLASSES[truth]}" for i, truth in found.rows[["id", "truth"]].tolist()]
        (tmp_path / "labels.csv").open("a").write("\n".join([*([] if seed else ["id,label"]), *lines, ""]))
        found.rows["truth"] = -1
        write(tmp_path / "log" / name, found.rows, found.about)
    return tmp_path


def run(*arguments):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["monitor", "ab", *map(str, arguments)])
        patch.setattr("jaxnets.exit.end", sys.exit)
        with pytest.raises(SystemExit) as ended:
            command.main()
    return ended.value.code


def test_the_command_says_which_is_better_in_words_and_as_json(log, capsys):
    given = ("--log", log / "log", "--a", "old", "--b", "new")
    assert run(*given, "--labels", log / "labels.csv", "--out", log / "ab.json") == 1
    said = capsys.readouterr().out
    assert "they differ in: accuracy" in said
    assert "B less" in said
    assert run(*given, "--labels", log / "labels.csv", "--json") == 1
    found = json.loads(capsys.readouterr().out)
    assert found == json.loads((log / "ab.json").read_text())
    assert found["differing"] == ["accuracy"]
    assert found["measures"][0]["always_valid_p_adjusted"] < 0.05
    assert run(*given) == 0  # without labels


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"--b": "old"}, "--a and --b are both old"),
        ({"--b": "newer"}, "no records of 'newer' (did you mean 'new'?)"),
        ({"--log": "nowhere"}, "is no folder"),
        ({"--since": "2030-01-01"}, "the window has no records of old"),
        ({"--window": "soon"}, "--window must be a length"),
        ({"--least-records": "5000"}, "old has 1,500 records to compare"),
        ({"--labels": "nowhere.csv"}, "cannot be read"),
        ({"--alpha": "5"}, "--alpha must be above 0"),
    ],
)
def test_mistakes_end_with_2(log, capsys, changed, says):
    given = {"--log": log / "log", "--a": "old", "--b": "new", **changed}
    assert run(*[word for pair in given.items() for word in pair]) == 2
    assert says in capsys.readouterr().err


def test_the_window_is_the_time_in_which_both_answered(log, capsys):
    late = answered("late", 300, 0.9, 3, first=50_000)
    late.rows["time"] += 1000
    write(log / "log" / "late", late.rows, late.about)
    run("--log", log / "log", "--a", "old", "--b", "late", "--json")
    found = json.loads(capsys.readouterr().out)
    assert (found["a"]["records"], found["b"]["records"]) == (500, 300)
    run("--log", log / "log", "--a", "old", "--b", "late", "--json", "--window", "450s")
    assert json.loads(capsys.readouterr().out)["a"]["records"] == 451
