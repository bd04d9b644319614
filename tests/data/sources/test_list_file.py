"""A list of images and their classes."""

from pathlib import Path

import numpy as np
import pytest

from jaxnets.config import DataConfig
from jaxnets.data.sources import open_labelled, open_source
from jaxnets.errors import UserError
from tests.data.sources.images import fill


def _list(folder: Path, *lines: str, encoding: str = "utf-8") -> DataConfig:
    fill(folder / "my images", 10)
    (folder / "list.txt").write_text("\n".join(lines), encoding)
    return DataConfig(source=f"list:{folder / 'list.txt'}")


@pytest.mark.parametrize("between", ["\t", " ", "   ", ",", ", ", " \t "])
def test_lines_are_a_path_and_a_class(tmp_path, between):
    source = open_source(_list(tmp_path, *(f"my images/{i}.png{between}{'cd'[i % 2]}" for i in range(10))), 0)
    assert source.class_names == ("c", "d")
    found = {part.name(i): int(part.labels[i]) for part in source.splits.values() for i in range(len(part))}
    assert found == {f"my images/{i}.png": i % 2 for i in range(10)}
    assert source.splits["train"].image(0).shape == (6, 8, 3)


def test_classes_may_hold_spaces_after_a_tab_or_a_comma(tmp_path):
    source = open_source(_list(tmp_path, "my images/0.png\tpolar bear", "my images/1.png,black bear"), 0)
    assert source.class_names == ("black bear", "polar bear")


def test_numbers_are_sorted_by_value(tmp_path):
    lines = (f"my images/{i}.png {number}" for i, number in enumerate([10, 9, 0, 2]))
    assert open_source(_list(tmp_path, *lines), 0).class_names == ("0", "2", "9", "10")


def test_empty_lines_and_a_byte_order_mark_are_passed_over(tmp_path):
    spec = _list(tmp_path, "", "my images/0.png a", " ", "my images/1.png b", "", encoding="utf-8-sig")
    assert sum(map(len, open_source(spec, 0).splits.values())) == 2


def test_a_list_is_evaluated_whole_with_the_model_s_labels(tmp_path):
    spec = _list(tmp_path, "my images/0.png tee", "my images/1.png red", "my images/2.png tee")
    source = open_labelled(spec, ("blue", "red", "tee"))
    assert source.splits["all"].labels.tolist() == [2, 1, 2]
    assert source.notes[-1] == f"{spec.source} has no images of blue"


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (["my images/0.png a", "images"], "line 2: expected a path and a class"),
        (["path class", "my images/0.png a"], "which does not exist: paths are relative to the folder of the list"),
        (["my images/0.png a", "my images/1.png a"], "two or more classes, found 1 (a)"),
        ([""], "two or more classes, found 0"),
    ],
)
def test_a_list_that_is_none_is_refused(tmp_path, lines, expected):
    with pytest.raises(UserError) as refused:
        open_source(_list(tmp_path, *lines), 0)
    assert expected in str(refused.value)


def test_a_list_that_is_no_text_or_not_there_is_refused(tmp_path):
    (tmp_path / "list.txt").write_bytes(bytes(np.arange(256, dtype=np.uint8)))
    with pytest.raises(UserError, match="must be text in UTF-8"):
        open_source(DataConfig(source=f"list:{tmp_path / 'list.txt'}"), 0)
    with pytest.raises(UserError, match="cannot be read: No such file"):
        open_source(DataConfig(source=f"list:{tmp_path / 'none.txt'}"), 0)
