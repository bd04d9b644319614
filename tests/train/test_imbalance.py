"""What a run does about rare classes, from its config and its data."""

from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

import jaxnets.data.dataset
from jaxnets import create_model
from jaxnets.data.dataset import open_dataset
from jaxnets.data.pipeline import train_stream
from jaxnets.data.sources import ArraySplit, Source
from jaxnets.errors import UserError
from jaxnets.run.directory import RunDirectory
from jaxnets.train.build import make_recipe, model_fields
from jaxnets.train.hosts import Hosts
from jaxnets.train.imbalance import class_weights, make_rebalance
from jaxnets.train.loop import set_up
from jaxnets.train.step import init_state, make_eval_step, make_train_step
from tests.train.runs import short

NAMES = ("cat", "dog", "owl")


def split(labels, targets=None):
    images = np.random.default_rng(len(labels)).integers(0, 256, (len(labels), 8, 8, 1), np.uint8)
    return ArraySplit(images, labels.astype(np.int32), f"made{len(labels)}", targets=targets)


def opened(monkeypatch, counts=(40, 8, 2), several=False, **changed):
    """Returns the config and the data of a run on so many images of each class."""
    labels = np.repeat(np.arange(len(counts)), counts)
    targets = None
    if several:  # the second and third class have the first as well
        targets = np.eye(len(counts), dtype=np.uint8)[labels]
        targets[:, 0] = labels != 2
    splits = {"train": split(labels, targets), "test": split(labels[::2], None if targets is None else targets[::2])}
    source = Source(description="made", class_names=NAMES, splits=splits, image_size=(8, 8), channels=1)
    monkeypatch.setattr(jaxnets.data.dataset, "open_source", lambda data, seed: source)
    config = short(
        **{
            "augment": {"pad_and_crop": {"padding": 0}},
            **changed,
            "data": {"validation": 0.0, **changed.get("data", {})},
        }
    )
    return config, open_dataset(config)


def test_weights_and_priors_are_those_of_the_training_split(monkeypatch):
    config, data = opened(monkeypatch, loss={"class_weights": "balanced", "logit_adjustment": 2.0})
    rebalance = make_rebalance(config, data)
    np.testing.assert_allclose(rebalance.weights, 50 / (3 * np.array([40, 8, 2])), rtol=1e-12)
    np.testing.assert_allclose(rebalance.shift, 2 * np.log(np.array([40, 8, 2]) / 50), rtol=1e-12)


def test_what_balanced_sampling_makes_up_for_is_not_made_up_for_twice(monkeypatch):
    loss = {"class_weights": "balanced", "logit_adjustment": 1.0}
    rebalance = make_rebalance(*opened(monkeypatch, (40, 20, 3), loss=loss, data={"balance": 1.0}))
    np.testing.assert_allclose(rebalance.weights, 1, rtol=1e-12)
    np.testing.assert_allclose(rebalance.shift, np.log(1 / 3), rtol=1e-12)


def test_several_labels_are_weighted_by_what_has_them_not(monkeypatch):
    loss = {"name": "sigmoid_cross_entropy", "class_weights": "balanced"}
    rebalance = make_rebalance(*opened(monkeypatch, several=True, loss=loss))
    np.testing.assert_allclose(rebalance.weights, [2 / 48, 42 / 8, 48 / 2], rtol=1e-12)
    assert rebalance.shift is None


@pytest.mark.parametrize(
    ("loss", "counts", "several", "expected"),
    [
        ({"class_weights": "balanced"}, (40, 0, 2), False, "class_weights balanced needs .* 'dog' has no training im"),
        ({"logit_adjustment": 1.0}, (40, 0, 0), False, "logit_adjustment 1 needs .* 'dog', 'owl' have no training im"),
        ({"class_weights": "balanced"}, (40, 8, 0), True, "'owl' has no training images"),
        ({"logit_adjustment": 1.0}, (40, 8, 2), True, "sigmoid_cross_entropy decides each class by itself"),
    ],
)
def test_what_has_no_frequency_is_refused(monkeypatch, loss, counts, several, expected):
    loss = {**loss, **({"name": "sigmoid_cross_entropy"} if several else {})}
    with pytest.raises(UserError, match=expected):
        make_rebalance(*opened(monkeypatch, counts, several, loss=loss))


def test_weights_of_a_file_are_taken_as_they_are_but_not_for_a_class_without_images(tmp_path, monkeypatch):
    (tmp_path / "w.csv").write_text("owl,9\ncat,1\ndog,3\n")
    spec = short(loss={"class_weights": str(tmp_path / "w.csv")}).loss
    assert class_weights(np.array([40, 8, 2]), spec, NAMES).tolist() == [1, 3, 9]
    with pytest.raises(UserError, match="'owl' has no training images"):
        class_weights(np.array([40, 8, 0]), spec, NAMES)
    assert class_weights(np.array([40, 8, 0]), replace(spec, class_weights=None), NAMES).tolist() == [1, 1, 1]


def test_imbalance_is_said_with_what_to_do_about_it_or_what_is_done(monkeypatch):
    _, data = opened(monkeypatch)
    (note,) = [note for note in data.notes if "owl has 2 training images and cat 40" in note]
    for key in ("config.data.balance=", "config.loss.class_weights=balanced", "config.loss.logit_adjustment=1"):
        assert key in note
    _, data = opened(monkeypatch, several=True)
    (note,) = [note for note in data.notes if "owl has 2 training images" in note]
    assert "class_weights=balanced" in note
    assert "logit_adjustment" not in note  # which is of the softmax
    _, data = opened(monkeypatch, loss={"class_weights": "balanced"}, data={"balance": 0.5})
    assert any("config.data.balance 0.5 and config.loss.class_weights balanced make up" in note for note in data.notes)


class Linear(nn.Module):
    num_classes: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x, *, train):
        return nn.Dense(self.num_classes)(x.reshape(len(x), -1))


def test_training_has_the_weighted_loss_and_evaluation_the_plain_one(monkeypatch):
    loss = {"class_weights": "balanced", "logit_adjustment": 1.0, "label_smoothing": 0.1}
    config, data = opened(monkeypatch, loss=loss)
    recipe = make_recipe(config, data, create_model(config.model.name, **model_fields(config, 3)))
    model, fit = Linear(num_classes=3), data.preprocess
    state = init_state(model, fit, recipe, 0)
    (batch,) = train_stream(data.training, order=data.order, batch_size=16, start_step=0, stop_step=1, threads=0)
    logits = model.apply(state.variables, fit.normalise(batch.image, jnp.float32), train=True)
    log_p, weights = (
        jax.nn.log_softmax(logits + np.float32(recipe.rebalance.shift)),
        np.float32(recipe.rebalance.weights),
    )
    expected = -(weights * (0.9 * np.eye(3)[batch.label] + 0.1 / 3) * log_p).sum()
    _, sums = jax.jit(make_train_step(model, fit, recipe, seed=0))(state, batch)
    np.testing.assert_allclose(sums["loss"], expected, rtol=1e-5)
    plain = -jax.nn.log_softmax(logits)[np.arange(16), batch.label].sum()
    found = jax.jit(make_eval_step(model, fit, recipe.loss))(state.variables, batch)
    np.testing.assert_allclose(found["loss"], plain, rtol=1e-5)


def test_a_run_does_not_go_on_with_a_file_that_says_otherwise(tmp_path, monkeypatch, one_device):
    file, run = tmp_path / "w.csv", RunDirectory(tmp_path / "run")
    file.write_text("owl,9\ncat,1\ndog,3\n")
    config, _ = opened(monkeypatch, loss={"class_weights": str(file)})
    run.create()
    run.write(config, set_up(config, run, Hosts(), one_device).card)
    assert run.read_model().class_weights == (1.0, 3.0, 9.0)
    assert run.refuse_other_run(config, set_up(config, run, Hosts(), one_device).card) == []
    file.write_text("owl,9\ncat,1\ndog,4\n")
    with pytest.raises(UserError, match=r"class weights: cat 1, dog 3, owl 9 there, cat 1, dog 4, owl 9 now"):
        run.refuse_other_run(config, set_up(config, run, Hosts(), one_device).card)
