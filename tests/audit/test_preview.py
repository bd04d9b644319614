from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from jaxnets.audit.preview import describe_target, feed
from jaxnets.data.dataset import open_dataset
from jaxnets.data.pipeline import train_stream
from jaxnets.data.sources import Source
from jaxnets.models.registry import create_model
from jaxnets.train.build import make_recipe, model_fields
from jaxnets.train.step import init_state, make_train_step
from tests.train.runs import short
from tests.train.test_several_labels import NAMES, made

CONFIG = short(
    mix={"mixup": 1.0},
    loss={"label_smoothing": 0.1},
    augment={
        "pad_and_crop": {"padding": 0},
        "quarter_turn": {"probability": 0.5},
        "random_resized_crop": {"area": (0.3, 1.0)},
    },
    data={"image_size": 12, "canvas_size": 16},
)


class Linear(nn.Module):
    """The least that can be trained."""

    num_classes: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x, *, train):
        return nn.Dense(self.num_classes)(x.reshape(len(x), -1))


@pytest.fixture(scope="module")
def data():
    return open_dataset(CONFIG)


@pytest.fixture(scope="module")
def fed(data):
    return list(feed(CONFIG, data, batches=2, images=16))


def test_the_loss_of_a_step_is_that_of_the_images_and_targets_that_are_shown(data, fed):
    model = Linear(num_classes=10)
    recipe = make_recipe(CONFIG, data, create_model(CONFIG.model.name, **model_fields(CONFIG, 10)))
    step = make_train_step(model, data.preprocess, recipe, seed=CONFIG.seed)
    state = init_state(model, data.preprocess, recipe, CONFIG.seed)
    stream = train_stream(
        data.training, order=data.order, batch_size=CONFIG.batch_size, start_step=0, stop_step=1, threads=1
    )
    _, sums = jax.jit(step)(state, next(stream))
    logits = model.apply(state.variables, data.preprocess.normalise(fed[0].images, jnp.float32), train=True)
    shown = recipe.loss(logits, fed[0].target)
    assert float(sums["loss"]) == pytest.approx(float(shown.sum()), rel=1e-4)


def test_each_stage_is_shown_and_the_next_comes_of_it(fed):
    for batch in fed:
        assert list(batch.stages) == ["canvas", "cut", "augmented", "mixed"]
        assert batch.stages["canvas"].shape == (16, 16, 16, 1)
        assert batch.images.shape == (16, 12, 12, 1)
        turned = [np.rot90(batch.stages["cut"], k, axes=(1, 2)) == batch.stages["augmented"] for k in range(4)]
        assert np.any([same.all((1, 2, 3)) for same in turned], axis=0).all()
        assert not turned[0].all()


def test_targets_are_mixed_as_their_images_are(data, fed):
    labels = data.training.labels[fed[0].index]
    floor, mixed = fed[0].floor, fed[0].images.astype(float)
    plain = fed[0].stages["augmented"].astype(float)
    own = fed[0].target[np.arange(16), labels] - floor
    share = own[labels != labels[::-1]][0] / (1 - 0.1)
    assert 0.01 < share < 0.99
    assert mixed == pytest.approx(share * plain + (1 - share) * plain[::-1], abs=0.51)


def test_a_target_is_told_without_the_share_of_smoothing():
    names = ("cat", "dog", "cow")
    assert describe_target(np.array([0.9 * 0.7 + 0.1 / 3, 0.9 * 0.3 + 0.1 / 3, 0.1 / 3]), 0.1 / 3, names) == (
        "cat 66% + dog 30%"
    )
    assert describe_target(np.array([0.05, 0.95]), 0.05, names[:2]) == "dog 95%"


def test_a_target_of_several_labels_names_those_that_the_image_has_and_no_others():
    splits = {"train": made(64, 0), "test": made(32, 1)}
    source = Source(description="made", class_names=NAMES, splits=splits, image_size=(8, 9), channels=1)
    config = short(loss={"name": "sigmoid_cross_entropy", "label_smoothing": 0.2}, data={"validation": 0.0})
    (batch,) = feed(config, open_dataset(config, source=source), batches=1, images=16)
    for target, index in zip(batch.target, batch.index, strict=True):
        own = [f"{name} 90%" for name, label in zip(NAMES, splits["train"].targets[index], strict=True) if label]
        assert describe_target(target, batch.floor, NAMES) == (" + ".join(own) or "no class")
