"""What the tests of whole runs share: short runs on the digits, and how two of them are compared."""

import json
import subprocess
import time
from pathlib import Path

import jax
import numpy as np

from jaxnets.config import Config, resolve
from jaxnets.run.checkpoints import read_item, read_variables, steps
from jaxnets.run.storage import Place, absolute

SMALL = "resnet8_cifar"  # the smallest network, since compiling it is what costs
TIMES = {
    "time",
    "train/images_per_second",
    "train/data_wait",
    "train/mfu",
}  # what differs between two runs that are the same


def short(**changed) -> Config:
    """Returns a config of a few small steps; keys as in config.json.

    The rate is constant, so that runs of any length have one program, compiled once for all tests.
    """
    data = {"validation": 0.1, **changed.pop("data", {})}
    augment = {"pad_and_crop": {"padding": 1}, **changed.pop("augment", {})}
    model = {"name": SMALL, **changed.pop("model", {})}
    defaults = {
        "batch_size": 16,
        "steps": 4,
        "log_every_steps": 3,
        "drawings": False,
        "eval_every_steps": 4,
        "data": data,
        "model": model,
        "augment": augment,
        "schedule": {"name": "constant"},
    }
    return resolve({**defaults, **changed})


def rows_of(workdir: Place) -> list[dict]:
    rows = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in row.items() if key not in TIMES} for row in rows]


def arrays_of(workdir: Place, step: int) -> dict[str, np.ndarray]:
    """Returns every array of a checkpoint: weights, statistics, their averages and the optimizer's state."""
    path = absolute(workdir) / "checkpoints" / str(step)
    tree = {"optimizer": read_item(path / "optimizer")}
    for weights in ("raw", "ema"):
        tree[weights] = read_variables(path.parent, step, weights)
    return {jax.tree_util.keystr(key): np.asarray(x) for key, x in jax.tree_util.tree_leaves_with_path(tree)}


def assert_same_run(a: Place, b: Place) -> None:
    """Asserts that two runs have the same newest step, the same bits in it and the same rows of metrics."""
    step = steps(a / "checkpoints")[-1]
    assert steps(b / "checkpoints")[-1] == step
    first, second = arrays_of(a, step), arrays_of(b, step)
    assert first.keys() == second.keys()
    different = [key for key in first if not np.array_equal(first[key], second[key])]
    assert not different
    assert rows_of(a) == rows_of(b)


def wait_for_rows(process: subprocess.Popen, metrics: Path, rows: int, seconds: float = 240) -> None:
    """Waits until a run has written so many rows, or has ended."""
    deadline = time.monotonic() + seconds
    while process.poll() is None and not (metrics.is_file() and len(metrics.read_bytes().splitlines()) >= rows):
        assert time.monotonic() < deadline, f"{metrics} has not {rows} rows after {seconds} s"
        time.sleep(0.001)
