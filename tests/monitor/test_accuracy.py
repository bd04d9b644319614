"""Expected accuracy from confidence, real accuracy from labels that come later."""

import numpy as np
import pytest

from jaxnets.errors import UserError
from jaxnets.monitor.accuracy import expected, real, with_labels
from jaxnets.monitor.judge import Bounds, judge
from jaxnets.monitor.records import Records
from tests.monitor.made import about, records


def labelled(count: int, seed: int, chance) -> Records:
    """Returns records whose answers are right with a chance that depends on their confidence."""
    found = records(count, seed)
    hits = np.random.default_rng(seed).random(count) < chance(found.rows["confidence"])
    found.rows["truth"] = np.where(hits, found.rows["label"], (found.rows["label"] + 1) % 3)
    return found


def test_expected_accuracy_is_that_of_a_model_that_is_surer_than_right():
    def chance(confidence):
        return confidence**3

    reference, window = labelled(5000, 0, chance), labelled(5000, 1, chance)
    window.rows["confidence"] *= 0.9  # harder images, and the model notices
    window.rows["truth"] = -1
    wanted = float(chance(window.rows["confidence"].astype(np.float64)).mean())
    found = expected(reference, window)
    assert found.share == pytest.approx(wanted, abs=0.03)
    assert abs(float(window.rows["confidence"].mean()) - wanted) > 0.1


def test_without_labels_in_the_reference_confidence_is_taken_as_it_is():
    window = records(500, 1)
    found = expected(records(500), window)
    assert found.share == pytest.approx(float(window.rows["confidence"].mean()))
    assert found.how == "confidence at the model's temperature"
    uncalibrated = Records(about=about(calibrated=False), rows=window.rows)
    assert expected(records(500), uncalibrated).how == "confidence that nobody calibrated"
    assert expected(records(500), Records(about=about(several_labels=True), rows=window.rows)) is None


def write(folder, text):
    file = folder / "labels.csv"
    file.write_text(text)
    return file


def test_labels_that_come_later_give_the_real_accuracy(tmp_path):
    window = records(500)
    names = window.about.labels
    lines = [f"{i:016x},{names[window.rows['label'][i - 1]] if i % 4 else names[0]}" for i in range(1, 101)]
    found, note = with_labels(window, write(tmp_path, "\n".join(["id,label", *lines, f"{999:016X},2"])))
    assert note == "100 of the 101 labels in labels.csv are of records of this model"
    hits = int((found.rows["label"] == found.rows["truth"])[:100].sum())
    assert real(found).share == hits / 100
    assert real(found).count == 100
    assert real(window) is None


def test_numbers_of_classes_are_labels_too_and_columns_may_be_in_any_order(tmp_path):
    file = write(tmp_path, f"Label , note, ID\n2,x,{1:016x}\n")
    found, _ = with_labels(records(10), file)
    assert found.rows["truth"].tolist() == [2] + [-1] * 9


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "must be a CSV with the columns id and label, found nothing"),
        ("a,b\n1,2\n", "found 'a', 'b'"),
        ("id,label\n1,cat\n", "line 2: an id has 16 hexadecimal digits, found '1'"),
        (f"id,label\n{1:016x},dogg\n", r"line 2: there is no class 'dogg' \(did you mean 'dog'\?\)"),
        (f"id,label\n{1:016x},3\n", "no class '3'"),
        (f"id,label\n{1:016x}\n", "no class ''"),
        (f"id,label\n{1:016x},cat\n{2:016x},dog\n{1:016x},dog\n", "line 4: 0000000000000001 has had another label"),
        (f"id,label\n{77:016x},cat\n", "none of its 1 ids is of a record"),
    ],
)
def test_labels_that_are_none(tmp_path, text, says):
    with pytest.raises(UserError, match=says):
        with_labels(records(10), write(tmp_path, text))


def test_an_accuracy_below_its_bound_is_drift():
    reference, window = labelled(500, 0, lambda c: c), labelled(500, 1, lambda c: 0.5 * c)
    assert judge(reference, window).crossed == ()
    assert judge(reference, window, Bounds(least_accuracy=0.7)).crossed == ("accuracy",)
    assert judge(reference, window, Bounds(least_accuracy=0.3)).crossed == ()
