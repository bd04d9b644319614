"""predictions.csv, its Parquet form, and metrics.json."""

import csv
import io
import json

import numpy as np
import pytest

from jaxnets.errors import UserError
from jaxnets.evaluate import predictions_file
from jaxnets.evaluate.files import metrics_text, write_file
from jaxnets.evaluate.predictions_file import as_csv, as_parquet, named
from tests.evaluate import made

NAMES = ('a,"b"', "日本", "c\nd")


@pytest.fixture
def table():
    p = made.random(2500, 3)
    p = made.predictions(p.labels, p.logits, class_names=NAMES, paths=tuple(f"x, {i}\udce9.png" for i in range(2500)))
    probabilities = p.probabilities()
    return p, probabilities, probabilities.max(1), named(p.labels, NAMES, ";"), named(p.said, NAMES, ";")


@pytest.mark.parametrize(("exact", "tolerance"), [(10**9, 1e-6), (0, 5.1e-7)])
def test_the_csv_says_of_each_image_what_was_said(table, monkeypatch, exact, tolerance):
    monkeypatch.setattr(predictions_file, "_EXACT", exact)
    _, probabilities, confidence, labels, said = table
    rows = list(csv.DictReader(io.StringIO(b"".join(as_csv(*table)).decode(), newline="")))
    assert len(rows) == 2500
    assert list(rows[0]) == ["path", "label", "prediction", "confidence", *(f"p_{name}" for name in NAMES)]
    assert [row["label"] for row in rows] == labels
    assert [row["prediction"] for row in rows] == said
    assert rows[7]["path"] == "x, 7\\udce9.png"
    found = np.array([[float(row[f"p_{name}"]) for name in NAMES] for row in rows])
    np.testing.assert_allclose(found, probabilities, rtol=0, atol=tolerance)
    np.testing.assert_allclose([float(row["confidence"]) for row in rows], confidence, rtol=0, atol=1e-6)


def test_parquet_has_the_same_columns_and_the_probabilities_to_the_bit(table):
    parquet = pytest.importorskip("pyarrow.parquet")
    found = parquet.read_table(io.BytesIO(as_parquet(*table)))
    assert found.column_names[:5] == ["path", "label", "prediction", "confidence", f"p_{NAMES[0]}"]
    np.testing.assert_array_equal(found[f"p_{NAMES[1]}"].to_numpy(), table[1][:, 1])


def test_several_labels_are_one_cell():
    chosen = np.array([[True, False, True], [False] * 3])
    assert named(chosen, ("a", "b", "c"), ";") == ["a;c", ""]


def test_metrics_json_has_a_line_for_each_row_of_the_matrix_and_no_nan():
    metrics = {"loss": float("nan"), "confusion": [[1, 2], [3, 4]], "per_class": {"a": {"f1": None}}}
    text = metrics_text(metrics)
    assert json.loads(text) == {**metrics, "loss": None}
    assert "\n    [1,2],\n    [3,4]\n" in text


def test_a_folder_that_is_a_file_is_refused(tmp_path):
    (tmp_path / "x").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        write_file(tmp_path / "x" / "metrics.json", b"{}")
