"""Shards and tables in a bucket, read by ranges of bytes."""

import pytest

from jaxnets.config import DataConfig
from jaxnets.data.sources import open_source, with_absolute_paths
from jaxnets.errors import UserError
from tests.data.sources import tables


@pytest.fixture
def uploaded(objects, tmp_path, monkeypatch):
    """Writes the images as a source has them, and puts all files into the bucket."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))

    def uploaded(write) -> tuple[str, str]:
        here = write(tmp_path / "data")
        for file in (tmp_path / "data").rglob("*"):
            if file.is_file():
                objects.put(f"data/{file.relative_to(tmp_path / 'data')}", file.read_bytes(), None)
        return here, here.replace(str(tmp_path / "data"), "gs://bucket/data")

    return uploaded


def _contents(source: str) -> dict[str, list[tuple[bytes, str, int]]]:
    opened = open_source(with_absolute_paths(DataConfig(source=source)), 0)
    return {
        name: [
            (part.image(i).tobytes(), opened.class_names[part.labels[i]], int(part.identities[i]))
            for i in range(len(part))
        ]
        for name, part in opened.splits.items()
    }


def test_shards_in_a_bucket_are_those_on_a_disk(uploaded):
    here, there = uploaded(tables.write_tar)
    assert there == "tar:gs://bucket/data/*.tar"
    assert _contents(there) == _contents(here)


def test_a_csv_in_a_bucket_is_that_on_a_disk(uploaded):
    here, there = uploaded(tables.write_csv)
    assert there == "csv:gs://bucket/data/labels.csv"
    assert _contents(there) == _contents(here)


def test_a_pattern_that_no_object_fits_is_refused(objects):
    with pytest.raises(UserError, match="leads to no file"):
        open_source(DataConfig(source="tar:gs://bucket/none/*.tar"), 0)
    with pytest.raises(UserError, match=r"x\.parquet lies in a bucket: download it"):
        open_source(DataConfig(source="parquet:gs://bucket/x.parquet"), 0)
