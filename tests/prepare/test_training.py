"""Runs on prepared data."""

import pytest

from jaxnets.config import DataConfig
from jaxnets.data.sources import open_undivided
from jaxnets.evaluate.run import evaluate_run
from jaxnets.run.directory import open_run
from jaxnets.train.display import Display
from jaxnets.train.loop import train
from tests.prepare.sets import prepared
from tests.train.runs import arrays_of, rows_of, short


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    out = tmp_path_factory.mktemp("digits") / "prepared"
    prepared(open_undivided(DataConfig(source="digits")), out, (8, 8), shard_bytes=30_000)
    return f"prepared:{out}"


@pytest.mark.parametrize("placement", ["device", "stream"])
def test_a_run_in_two_sessions_has_the_bits_of_one_on_the_source(tmp_path, one_device, digits, placement):
    def run(name, source, steps):
        config = short(steps=steps, log_every_steps=4, data={"placement": placement, "source": source})
        train(config, tmp_path / name, Display(quiet=True), one_device)

    run("source", "digits", 8)
    for steps in (4, 8):
        run("prepared", digits, steps)
    whole, parts = (arrays_of(tmp_path / name, 8) for name in ("source", "prepared"))
    assert all((whole[key] == parts[key]).all() for key in whole)
    training = [[row for row in rows_of(tmp_path / name) if "train/loss" in row] for name in ("source", "prepared")]
    assert training[0] == training[1]
    if placement == "stream":
        figures = [evaluate_run(open_run(str(tmp_path / name))) for name in ("source", "prepared")]
        assert figures[0]["per_class"] == figures[1]["per_class"]
