"""The names that `config.data.source` takes, and what is said about others."""

import subprocess
import sys

import pytest

from jaxnets.config import DataConfig, TableConfig
from jaxnets.data.sources import open_labelled, open_source
from jaxnets.errors import UserError
from tests.data.sources.images import tree


def _refused(source: str) -> str:
    with pytest.raises(UserError) as refused:
        open_source(DataConfig(source=source), seed=0)
    return str(refused.value)


def test_an_unknown_kind_is_answered_with_the_nearest():
    assert "did you mean 'folder'" in _refused("folders:/data")


def test_an_unknown_kind_is_answered_with_all_there_are():
    forms = [
        "digits",
        "idx:DIR",
        "folder:DIR",
        "list:FILE",
        "csv:FILE",
        "parquet:FILE",
        "tar:GLOB",
        "hf:NAME",
        "prepared:DIR",
        "tfds:NAME",
    ]
    said = _refused("mnist")
    assert all(form in said for form in forms)
    assert "found 'mnist'" in said


def test_a_bare_path_is_answered_with_how_to_write_it():
    assert "write folder:/data/birds" in _refused("/data/birds")


@pytest.mark.parametrize("source", ["idx:", "folder:", "tfds:", "list:", "csv:", "tar:", "hf:", "idx", "folder: "])
def test_a_kind_without_its_place_is_refused(source):
    assert f"found {source!r}" in _refused(source)


def test_digits_with_something_after_them_are_refused():
    assert "takes nothing after it, found 'digits:8'" in _refused("digits:8")


def test_a_key_that_a_source_does_not_read_is_refused_where_it_is_trained_on(tmp_path):
    tree(tmp_path, "a*3", "b*3")
    spec = DataConfig(source=f"folder:{tmp_path}", table=TableConfig(group="patient"))
    with pytest.raises(UserError, match=r"config.data.table.group is a key of csv:FILE, .*tar:GLOB.* folder:DIR does"):
        open_source(spec, 0)
    assert len(open_labelled(spec, ("a", "b")).splits["all"]) == 6  # of a run with its keys, on other data
    with pytest.raises(UserError, match=r"config.data.root is a key of csv:FILE, parquet:FILE, and digits does not"):
        open_source(DataConfig(source="digits", root="."), 0)


def test_importing_the_sources_imports_no_heavy_library():
    code = (
        "import sys, jaxnets.data.sources;"
        "heavy = {'sklearn', 'tensorflow_datasets', 'tensorflow', 'scipy', 'pyarrow', 'datasets'} & set(sys.modules);"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
