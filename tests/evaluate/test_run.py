"""Which images an evaluation is of."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jaxnets.config import Config, resolve
from jaxnets.data.dataset import open_dataset
from jaxnets.errors import UserError
from jaxnets.evaluate.run import open_data
from jaxnets.run.directory import ModelCard
from tests.data.sources.images import tree

Run = tuple[Config, ModelCard]


def _run(root: Path) -> Run:
    """Returns config and card of a run on a folder."""
    config = resolve({"data": {"source": f"folder:{root}", "image_size": 8}})
    data = open_dataset(config)
    fields = {"class_names": data.class_names, "preprocess": data.preprocess, "data": data.fingerprint()}
    return config, ModelCard(name="resnet8_cifar", fields={}, **fields)


@pytest.fixture
def trained(tmp_path) -> Run:
    return _run(tree(tmp_path / "run", "red*20", "tee*20"))


def _counts(run: Run, source: str | None, split: str = "test") -> dict[str, list[int]]:
    data = open_data(*run, split, source)
    return {name: np.bincount(examples.labels, minlength=2).tolist() for name, examples in data.splits.items()}


@pytest.mark.parametrize(
    ("folders", "expected"),
    [
        (["red*9", "tee*7"], {"all": [9, 7]}),
        (["tee*7"], {"all": [0, 7]}),
        (["new/tee*7", "new/red"], {"all": [2, 7]}),
        (["test/red*9", "test/tee*7"], {"test": [9, 7]}),
        (["test/tee*7"], {"test": [0, 7]}),
        (["seg_val/tee", "seg_val/red*4", "seg_pred"], {"validation": [4, 2]}),
        (["train/red", "train/tee", "test/red*3", "test/tee*4"], {"train": [2, 2], "test": [3, 4]}),
    ],
)
def test_new_data_is_evaluated_whole(trained, tmp_path, folders, expected):
    assert _counts(trained, f"folder:{tree(tmp_path / 'new', *folders)}") == expected


def test_new_data_of_one_label_is_judged_as_of_several_where_the_run_was(trained, tmp_path):
    config, card = trained
    data = open_data(config, replace(card, several_labels=True), "test", f"folder:{tree(tmp_path / 'new', 'tee*7')}")
    np.testing.assert_array_equal(data.split("all").labels, [[0, 1]] * 7)
    assert "judged as having one and no other" in data.notes[-1]


def test_classes_that_are_missing_are_said(trained, tmp_path):
    notes = open_data(*trained, "test", f"folder:{tree(tmp_path / 'new', 'tee')}").notes
    assert f"folder:{tmp_path}/new has no images of red" in notes


def test_a_class_that_the_model_does_not_know_is_refused(trained, tmp_path):
    with pytest.raises(UserError, match="has the class 'blue', which is none of the 2 known ones"):
        _counts(trained, f"folder:{tree(tmp_path / 'new', 'red', 'blue', 'tee')}")


def test_other_kinds_of_source_serve_too(trained, tmp_path):
    tree(tmp_path / "new", "a*3")
    (tmp_path / "new" / "list.txt").write_text("a/0.png tee\na/1.png red\na/2.png tee")
    assert _counts(trained, f"list:{tmp_path}/new/list.txt") == {"all": [1, 2]}


def test_the_run_s_data_elsewhere_is_evaluated_as_it_was_split(trained, tmp_path):
    before = _counts(trained, None)
    (tmp_path / "run").rename(tmp_path / "moved")
    assert _counts(trained, f"folder:{tmp_path}/moved") == before
    assert set(before) == {"train", "test"}


def _replace(root: Path) -> None:
    for file in root.rglob("*.png"):
        Image.fromarray(np.full((8, 8, 3), 99, np.uint8)).save(file)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda root: tree(root, "red/new*5"), "images, and had"),
        (lambda root: (root / "tee" / "0.png").rename(root / "tee" / "zzz.png"), "renamed|images, and had"),
        (_replace, "files hold something else than they did under the same name"),
        (lambda root: tree(root, "eel"), "then of the classes red, tee, now of eel, red, tee"),
    ],
)
def test_data_that_has_changed_is_refused_with_what_has(trained, tmp_path, change, expected):
    change(tmp_path / "run")
    with pytest.raises(UserError, match=f"is no longer the data of this run .*{expected}.*put the data back"):
        _counts(trained, None)


def test_of_the_run_s_own_folder_with_more_images_only_what_was_held_out_is_evaluated(trained, tmp_path):
    source = f"folder:{tmp_path}/run"
    before = open_data(*trained, "test", None).split("test")
    tree(tmp_path / "run", "red/more*20")
    after = _counts(trained, source + "/")
    assert set(after) == {"train", "test"}
    assert after["test"][1] == np.bincount(before.labels)[1]
