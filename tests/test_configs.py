"""Every config that ships, on images of a few pixels: built with its own network, and one step with the smallest."""

import jax
import numpy as np
import pytest
from PIL import Image

from jaxnets.config import resolve
from jaxnets.config_files import read_config, shipped_configs
from jaxnets.data.batch import Batch
from jaxnets.data.dataset import open_dataset
from jaxnets.train.build import build, steps_of

IMAGES, CLASSES, SIZE = 12, 3, 24


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root, random = tmp_path_factory.mktemp("images"), np.random.default_rng(0)
    for split in ("train", "test"):
        for label in range(CLASSES):
            (root / split / str(label)).mkdir(parents=True)
            for i in range(IMAGES):
                pixels = random.integers(0, 256, (28, 28, 3), np.uint8)
                Image.fromarray(pixels).save(root / split / str(label) / f"{i}.png")
    return root


def opened(name, folder, network=None):
    """Returns a config with the images of `folder` and all that follows of their size, and its data."""
    config = read_config(name)
    config.batch_size = 12
    config.dtype = "float32"
    config.finetune.method = config.distill.teacher = None
    if config.batch_norm.group_size:
        config.batch_norm.group_size = 6
    data, config.data.table.separator = config.data, None
    data.source, data.image_size = f"folder:{folder}", SIZE
    data.canvas_size = data.num_classes = data.train_examples = data.mean = data.std = None
    if data.test_size is not None:
        data.test_size = 32
    sizes = config.progressive.sizes
    config.progressive.sizes = tuple(SIZE - 4 * (len(sizes) - 1 - i) for i in range(len(sizes)))
    model = config.model
    model.pretrained = None
    if network is not None:
        model.name = network
        model.shortcut = model.dropout = model.stochastic_depth = model.zero_init_last_norm = None
    resolved = resolve(config)
    return resolved, open_dataset(resolved)


def rates_of(built, steps):
    """Returns some steps of a run and the learning rate at each."""
    some = np.linspace(0, steps - 1, 200).astype(np.int32)
    return some, np.asarray(jax.vmap(built.recipe.schedule)(some))


@pytest.mark.parametrize("name", shipped_configs())
def test_every_shipped_config_is_built_with_its_own_network(name, folder):
    config, data = opened(name, folder)
    built = build(config, data)
    assert built.model.num_classes == CLASSES
    assert len(built.phases) == max(1, len(config.progressive.sizes))
    _, rates = rates_of(built, steps_of(config, data))
    assert 0 < rates.max() <= config.optimizer.peak(config.batch_size) * (1 + 1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("name", shipped_configs())
def test_every_shipped_config_takes_a_step_that_changes_what_trains(name, folder):
    own = read_config(name).model.name
    config, data = opened(name, folder, None if own.startswith(("airbench", "mlp")) else "resnet8_cifar")
    built = build(config, data)
    phase = built.phases[-1]
    index = np.arange(config.batch_size, dtype=np.int32)
    seen = [data.training.read(i) for i in index]
    batch = Batch(
        np.stack([found.image for found in seen]),
        data.training.labels[index],
        index >= 0,
        index,
        index * 0,
        np.ones(len(index), np.float32),
    )
    before = jax.jit(phase.fresh_state)()
    # At the peak: the first step of a warm-up from 0 changes nothing.
    steps, rates = rates_of(built, steps_of(config, data))
    late = steps[rates.argmax()]
    counted = jax.tree.map(lambda x: x + late if x.dtype == np.int32 and not x.ndim else x, before.opt_state)
    before = before.replace(step=before.step + late, opt_state=counted)
    after, sums = jax.jit(phase.step)(before, batch)
    assert np.isfinite(float(sums["loss"]))
    pairs = zip(jax.tree.leaves(before.params), jax.tree.leaves(after.params), strict=True)
    changed = [(np.asarray(old) != np.asarray(new)).any() for old, new in pairs]
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(after.params))
    assert np.mean(changed) > 0.8
