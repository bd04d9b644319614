"""A run that no training has made, for exports of it."""

from pathlib import Path

import jax.numpy as jnp
import numpy as np

import jaxnets
from jaxnets.preprocess import Preprocess
from jaxnets.run.checkpoints import Progress
from jaxnets.run.directory import ModelCard, RunDirectory
from jaxnets.train.saver import Checkpointer
from jaxnets.train.step import TrainState
from tests.tiny import live
from tests.train.runs import SMALL, short

GREY = Preprocess(height=8, width=8, channels=1, mean=(0.3,), std=(0.35,))


def run_on_digits(path: Path) -> Path:
    """Writes a run directory with one checkpoint of random weights."""
    run = RunDirectory(path)
    run.create()
    fields = {"num_classes": 10, "dtype": "float32"}
    names = tuple(map(str, range(10)))
    run.write(short(), ModelCard(name=SMALL, fields=fields, class_names=names, preprocess=GREY, data={}))
    variables = live(jaxnets.create_model(SMALL, preprocess=GREY, num_classes=10), GREY)
    saver = Checkpointer(run.checkpoints)
    saver.save(TrainState(step=jnp.int32(1), **variables, opt_state={}, ema=None), Progress(step=1))
    saver.close()
    return path


def digit_images(count: int) -> np.ndarray:
    """Returns uint8 images `[count, 8, 8]` of handwritten digits."""
    from sklearn.datasets import load_digits

    return (load_digits().images[:count] * 15.9).astype(np.uint8)
