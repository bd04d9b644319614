"""A small network with weights, folders of small images, and a cache of each test's own."""

from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from jaxnets.config import Config, resolve
from jaxnets.config_files import read_config
from jaxnets.models.registry import create_model
from jaxnets.preprocess import Preprocess
from jaxnets.run.checkpoints import Progress
from jaxnets.run.directory import ModelCard, RunDirectory
from jaxnets.train.saver import Checkpointer
from jaxnets.train.step import TrainState
from tests.tiny import live
from tests.train.runs import SMALL, short


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(scope="session")
def weights(tmp_path_factory) -> str:
    """Returns the run directory of a small network for the digits, with weights that are drawn."""
    run = RunDirectory(tmp_path_factory.mktemp("weights") / "run")
    seen = Preprocess(height=8, width=8, channels=1, mean=(0.3,), std=(0.3,))
    fields = {"num_classes": 10, "dtype": "float32"}
    model = create_model(SMALL, preprocess=seen, **fields)
    names = tuple(map(str, range(10)))
    run.write(short(), ModelCard(name=SMALL, fields=fields, class_names=names, preprocess=seen, data={}))
    variables = jax.device_put(live(model, seen))
    state = TrainState(jnp.zeros((), jnp.int32), variables["params"], variables["batch_stats"], {}, None)
    saver = Checkpointer(run.checkpoints)
    saver.save(state, Progress(step=0))
    saver.close()
    return str(run.path)


def make_images(folder: Path, counts: dict[str, int], seed: int = 0) -> Path:
    """Writes images that are bright at a place of their class's own, as many of each class as said."""
    random = np.random.default_rng(seed)
    for number, (name, count) in enumerate(counts.items()):
        (folder / name).mkdir(parents=True, exist_ok=True)
        for i in range(count):
            image = random.integers(0, 90, (12, 10), np.uint8)
            image[3 * number : 3 * number + 3, number : number + 5] += 120
            Image.fromarray(image).save(folder / name / f"{i}.png")
    return folder


@pytest.fixture
def images(tmp_path) -> Path:
    return make_images(tmp_path / "images", {"a": 20, "b": 20, "c": 20})


@pytest.fixture
def config(weights, images) -> Callable[..., Config]:
    """Makes the config of a fine-tune of the small network on the images; keys by their full names."""

    def make(**changed) -> Config:
        values = read_config("finetune").to_dict()
        given = {
            "model.name": SMALL,
            "model.pretrained": weights,
            "data.source": f"folder:{images}",
            "batch_size": 16,
            **{name.replace("__", "."): value for name, value in changed.items()},
        }
        for name, value in given.items():
            *above, last = name.split(".")
            group = values
            for part in above:
                group = group[part]
            group[last] = value
        return resolve(values)

    return make
