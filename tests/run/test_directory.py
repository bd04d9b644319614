"""What a run directory's JSON files hold."""

import json
from dataclasses import replace

import pytest

from jaxnets.config import resolve
from jaxnets.errors import UserError
from jaxnets.preprocess import Preprocess
from jaxnets.run.directory import ModelCard, RunDirectory, write_json

PREPROCESS = Preprocess(height=8, width=8, channels=1, mean=(0.5,), std=(0.5,))
DATA = {"train": 90, "test": 10, "labels_crc32": 1, "examples_crc32": 2, "content_crc32": 3}
CARD = ModelCard(name="resnet8_cifar", fields={}, class_names=("a", "b"), preprocess=PREPROCESS, data=DATA)


def test_a_path_that_is_no_utf8_is_written_and_read_back(tmp_path):
    content = {"source": "folder:caf\udce9", "label": "café"}
    write_json(tmp_path / "config.json", content)
    assert json.loads((tmp_path / "config.json").read_text("utf-8")) == content


def test_names_are_written_as_a_person_reads_them(tmp_path):
    write_json(tmp_path / "model.json", {"label": "café"})
    assert "café" in (tmp_path / "model.json").read_text("utf-8")


@pytest.fixture
def run(tmp_path) -> RunDirectory:
    run = RunDirectory(tmp_path)
    run.write(resolve({}), CARD)
    return run


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"train": 91}, "the train split has 91 images, and had 90"),
        ({"labels_crc32": 7}, "images have other classes than they had"),
        ({"examples_crc32": 7, "content_crc32": 7}, "images were added, removed or renamed"),
        ({"content_crc32": 7}, "files hold something else than they did under the same name"),
    ],
)
def test_a_run_does_not_go_on_with_data_that_has_changed(run, changed, said):
    with pytest.raises(UserError, match=f"holds another run:\n  data: {said}\nGive another --workdir"):
        run.refuse_other_run(resolve({}), replace(CARD, data={**DATA, **changed}))


def test_a_run_goes_on_with_its_data_elsewhere(run):
    moved = resolve({"data": {"source": "folder:elsewhere"}})
    assert run.refuse_other_run(moved, CARD) == ["config.data.source: 'digits' there, 'folder:elsewhere' now"]


def test_a_run_of_the_version_before_goes_on_with_what_it_knew_of_its_data(run):
    run.write(resolve({}), replace(CARD, data={"train": 90, "test": 10, "labels_crc32": 1}))
    assert run.refuse_other_run(resolve({}), CARD) == []
    with pytest.raises(UserError, match="other classes"):
        run.refuse_other_run(resolve({}), replace(CARD, data={**DATA, "labels_crc32": 7}))
