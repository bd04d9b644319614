"""What a table's column says of the images that are evaluated."""

import numpy as np
import pytest
from PIL import Image

from jaxnets.config import resolve
from jaxnets.data.dataset import open_dataset
from jaxnets.errors import UserError
from jaxnets.evaluate.by_column import column_values


@pytest.fixture
def table(tmp_path):
    """Returns a CSV with a column `sex` beside `patient`, and the value of each image."""
    random = np.random.default_rng(0)
    values = {}
    lines = ["file,label,patient,Sex,age"]
    for i in range(60):
        Image.fromarray(random.integers(0, 256, (8, 8, 3), np.uint8)).save(tmp_path / f"{i}.png")
        values[f"{i}.png"] = ("f", "m", "")[i % 3]
        lines.append(f"{i}.png,{'cat' if i % 2 else 'dog'},p{i // 4},{values[f'{i}.png']},{i}")
    (tmp_path / "labels.csv").write_text("\n".join(lines))
    return tmp_path / "labels.csv", values


def _opened(path, **table):
    config = resolve({"data": {"source": f"csv:{path}", "image_size": 8, "validation": 0.2, "table": table}})
    return config, open_dataset(config)


@pytest.mark.parametrize("column", ["Sex", "sex"])
@pytest.mark.parametrize("split", ["test", "validation", "train"])
def test_each_image_has_the_value_of_its_row_however_the_table_was_divided(table, column, split):
    path, values = table
    config, data = _opened(path)
    examples = data.split(split)
    found = column_values(config.data, data.class_names, examples, np.arange(len(examples)), column)
    source, chosen = examples.stored
    assert list(found) == [values[source.name(i)] for i in chosen.tolist()]
    assert len(set(found)) == 3


def test_only_the_images_that_are_asked_for_are_answered(table):
    path, _ = table
    config, data = _opened(path)
    examples = data.split("train")
    whole = column_values(config.data, data.class_names, examples, np.arange(len(examples)), "Sex")
    some = column_values(config.data, data.class_names, examples, np.array([5, 2]), "Sex")
    assert some == (whole[5], whole[2])


def test_a_column_that_is_not_there_is_refused_with_those_that_are(table):
    path, _ = table
    config, data = _opened(path)
    with pytest.raises(
        UserError, match=r"'patiant', which csv:.* does not have .did you mean 'patient'..; it has 'file', 'label'"
    ):
        column_values(config.data, data.class_names, data.split("test"), np.arange(3), "patiant")


def test_the_columns_of_images_and_labels_are_no_groups(table):
    path, _ = table
    config, data = _opened(path)
    for column in ("file", "label"):
        with pytest.raises(UserError, match=f"--by {column} cannot be the group of each image: "):
            column_values(config.data, data.class_names, data.split("test"), np.arange(3), column)


def test_what_is_no_table_is_refused(table):
    path, _ = table
    _, data = _opened(path)
    other = resolve({"data": {"source": "digits"}})
    with pytest.raises(UserError, match="--by needs a table"):
        column_values(other.data, tuple("0123456789"), data.split("test"), np.arange(3), "Sex")


def test_images_of_another_table_are_refused(table, tmp_path):
    path, _ = table
    _, data = _opened(path)
    lines = path.read_text().splitlines()
    (tmp_path / "half.csv").write_text("\n".join(lines[:31]))
    half, _ = _opened(tmp_path / "half.csv")
    with pytest.raises(UserError, match="images that are evaluated are not in"):
        column_values(half.data, data.class_names, data.split("train"), np.arange(40), "Sex")
