"""Every source of a table or of shards: opened, trained on, evaluated, and gone on with."""

import functools
import io

import numpy as np
import pytest
from PIL import Image

from jaxnets.data.sources import open_source
from jaxnets.evaluate.run import evaluate_run
from jaxnets.run.directory import RunDirectory
from jaxnets.train.display import Display
from jaxnets.train.loop import train
from tests.data.sources import tables
from tests.train.runs import assert_same_run, rows_of, short


@pytest.fixture(scope="module", autouse=True)
def caches(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


def _config(source: str, cache, **changed):
    # One mean for all, so that all have one program.
    data = {"source": source, "mean": (0.5,) * 3, "std": (0.2,) * 3, "validation": 0.0, "directory": str(cache)}
    return short(**{"eval_every_steps": 2, "log_every_steps": 1, **changed}, data={**data, "placement": "stream"})


@pytest.fixture(scope="module")
def trained(tmp_path_factory, one_device):
    """Writes the images as a source has them, and trains on them, once."""

    @functools.cache
    def trained(kind: str):
        folder = tmp_path_factory.mktemp(kind)
        config = _config(getattr(tables, f"write_{kind}")(folder / "data"), folder / "cache")
        outcome = train(config, folder / "run", Display(), one_device)
        assert (outcome.step, outcome.finished) == (4, True)
        return config, folder / "run"

    return trained


@pytest.mark.parametrize("kind", ["csv", "parquet", "tar", "hf"])
def test_a_source_is_opened_trained_on_and_evaluated(trained, kind):
    config, workdir = trained(kind)
    source = open_source(config.data, 0)
    assert source.class_names == tables.CLASSES
    assert (source.image_size, source.channels) == ((8, 8), 3)
    for split, length in (("train", 48), ("test", 16)):
        part = source.splits[split]
        stored = {label: [] for label in (0, 1)}
        for _, label, _, content in (row for row in tables.examples() if row[2] == split):
            stored[tables.CLASSES.index(label)].append(content)
        assert len(part) == length
        for label, contents in stored.items():
            found = {part.image(i).tobytes() for i in range(length) if part.labels[i] == label}
            assert found == {_pixels(content).tobytes() for content in contents}
    evaluated = [(row["eval/split"], row["eval/count"]) for row in rows_of(workdir) if "eval/count" in row]
    assert evaluated == [("test", 16)] * 2


def test_a_run_is_evaluated_on_the_same_images_from_another_source(trained, tmp_path):
    _, workdir = trained("csv")
    own = evaluate_run(RunDirectory(workdir))
    other = evaluate_run(RunDirectory(workdir), source=tables.write_tar(tmp_path / "tar"))
    assert own["count"] == other["count"] == 16
    assert own["loss"] == pytest.approx(other["loss"], rel=1e-5)


def _pixels(content: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(content)))


@pytest.mark.parametrize("kind", ["csv", "tar"])
def test_steps_in_two_sessions_are_the_steps_in_one(trained, kind, one_device, tmp_path):
    config, whole = trained(kind)
    divided = tmp_path / "divided"
    assert train(_config(config.data.source, config.data.directory, steps=2), divided, Display(), one_device).step == 2
    train(config, divided, Display(), one_device)
    assert_same_run(whole, divided)
