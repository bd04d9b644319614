"""Runs on prepared data."""

from jaxnets.config import DataConfig
from jaxnets.data.sources import open_undivided
from jaxnets.train.display import Display
from jaxnets.train.loop import train
from tests.prepare.sets import prepared
from tests.train.runs import arrays_of, rows_of, short


def test_a_run_in_two_sessions_has_the_bits_of_one_on_the_source(tmp_path, one_device):
    prepared(open_undivided(DataConfig(source="digits")), tmp_path / "digits", (8, 8), shard_bytes=30_000)

    def run(name: str, source: str, steps: int) -> None:
        config = short(steps=steps, log_every_steps=4, data={"placement": "stream", "source": source})
        train(config, tmp_path / name, Display(quiet=True), one_device)

    run("source", "digits", 8)
    for steps in (4, 8):
        run("prepared", f"prepared:{tmp_path / 'digits'}", steps)
    whole, parts = (arrays_of(tmp_path / name, 8) for name in ("source", "prepared"))
    assert all((whole[key] == parts[key]).all() for key in whole)
    training = [[row for row in rows_of(tmp_path / name) if "train/loss" in row] for name in ("source", "prepared")]
    assert training[0] == training[1]
