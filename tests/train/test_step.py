from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxnets import create_model
from jaxnets.data.batch import Batch
from jaxnets.models.convnext.network import Stage as ConvNeXtStage
from jaxnets.models.resnet.network import ResNet, Stage
from jaxnets.preprocess import Preprocess
from jaxnets.recipe.augment.flip import Flip
from jaxnets.recipe.augment.pad_and_crop import PadAndCrop
from jaxnets.recipe.ema import EmaConfig, make_average
from jaxnets.recipe.losses.cross_entropy import SoftmaxCrossEntropy
from jaxnets.recipe.losses.imbalance import Rebalance
from jaxnets.recipe.losses.loss import soft_target
from jaxnets.recipe.mix import Mix
from jaxnets.recipe.recipe import Recipe
from jaxnets.train.mesh import over_data, replicated, state_shardings
from jaxnets.train.step import init_state, make_chunk, make_prepare, make_train_step

IMAGES = np.random.default_rng(0).integers(0, 256, (32, 8, 8, 1), np.uint8)
LABELS = np.arange(32, dtype=np.int32) % 4
ASPECTS = np.ones(32, np.float32)
REBALANCE = Rebalance(weights=(0.3, 1.0, 2.0, 5.0), shift=(-0.5, -1.0, -2.0, -4.0))
PREPROCESS = Preprocess(height=8, width=8, channels=1, mean=(0.5,), std=(0.3,))


def averaging(decay):
    return make_average(EmaConfig(decay=decay), batch_size=16, epochs=1.0, warmup_steps=0)


def tiny(dtype=jnp.float32, features=(8, 16), **fields):
    stages = tuple(Stage(blocks=1, features=f, stride=s) for f, s in zip(features, (1, 2), strict=True))
    return ResNet(
        stages=stages, block="basic", stem="cifar", stem_features=8, num_classes=4, dtype=dtype, **fields
    )  # fmt: skip


OPS = (PadAndCrop(padding=1), Flip(horizontal=0.5))


def setup(dtype=jnp.float32, *, make=tiny, rate=0.1, recipe=None, micro_batches=1, sharding=None, **fields):
    model = make(dtype=dtype, **fields)
    made = Recipe(
        **{
            "loss": SoftmaxCrossEntropy(),
            "label_smoothing": 0.1,
            "optimizer": optax.sgd(rate, momentum=0.9, nesterov=True),
            "schedule": lambda step: rate,
            "ops": OPS,
            **(recipe or {}),
        }
    )
    step = make_train_step(model, PREPROCESS, made, seed=0, micro_batches=micro_batches, sharding=sharding)
    return step, jax.jit(lambda: init_state(model, PREPROCESS, made, 0))()


def batch_at(step: int, size: int = 16) -> Batch:
    index = ((np.arange(size) + step * size) % 32).astype(np.int32)
    epoch = np.full(size, step * size // 32, np.int32)
    return Batch(IMAGES[index], LABELS[index], index >= 0, index, epoch, np.ones(size, np.float32))


def run_on(mesh, steps: int, dtype=jnp.float32, size: int = 16, split: bool = False, **fields):
    step, state = setup(dtype, **fields)
    shardings = state_shardings(state, mesh, split=split)
    compiled = jax.jit(step, out_shardings=(shardings, replicated(mesh)))
    state = jax.device_put(state, shardings)
    for i in range(steps):
        state, metrics = compiled(state, jax.device_put(batch_at(i, size), over_data(mesh)))
    return state, metrics


def assert_close(a, b, tolerance: float) -> None:
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_allclose(x, y, rtol=tolerance, atol=tolerance)


def test_one_step_agrees_on_one_and_eight_devices_in_float32(one_device, eight_devices):
    one, eight = run_on(one_device, 1), run_on(eight_devices, 1)
    assert_close(one, eight, 1e-5)


@pytest.mark.usefixtures("enable_x64")
@pytest.mark.parametrize("group_size", [None, 4])
def test_twenty_steps_agree_on_one_and_eight_devices_in_float64(one_device, eight_devices, group_size):
    fields = {"dtype": jnp.float64, "norm_group_size": group_size, "recipe": {"rebalance": REBALANCE}}
    one, eight = run_on(one_device, 20, **fields), run_on(eight_devices, 20, **fields)
    assert jax.tree.leaves(one[0].variables)[0].dtype == np.float64
    assert_close(one, eight, 1e-10)


@pytest.mark.usefixtures("enable_x64")
@pytest.mark.parametrize("micro_batches", [2, 4])
def test_micro_batches_give_what_the_whole_batch_gives(eight_devices, micro_batches):
    fields = {"dtype": jnp.float64, "norm_group_size": 4, "recipe": {"mix": Mix(mixup=0.5), "rebalance": REBALANCE}}
    sharding = over_data(eight_devices, axis=1)
    whole = run_on(eight_devices, 3, size=32, **fields)
    divided = run_on(eight_devices, 3, size=32, micro_batches=micro_batches, sharding=sharding, **fields)
    assert_close(divided, whole, 1e-10)


CONVNEXT = {"stages": [ConvNeXtStage(blocks=1, features=8)] * 2, "layer_scale": 0.5, "stochastic_depth": 0.0}
VIT = {"width": 16, "blocks": (1, 1), "heads": 2, "grid": (2, 2)}


@pytest.mark.usefixtures("enable_x64")
@pytest.mark.parametrize(("name", "fields"), [("convnext_tiny", CONVNEXT), ("vit_tiny_patch4_32", VIT)])
def test_micro_batches_need_no_groups_where_each_image_is_normalised_by_itself(eight_devices, name, fields):
    same = {"dtype": jnp.float64, "make": partial(create_model, name), "num_classes": 4, **fields}
    sharding = over_data(eight_devices, axis=1)
    whole = run_on(eight_devices, 2, size=32, **same)
    divided = run_on(eight_devices, 2, size=32, micro_batches=4, sharding=sharding, **same)
    assert_close(divided, whole, 1e-10)


@pytest.mark.usefixtures("enable_x64")
def test_a_state_split_over_the_devices_gives_what_copies_give(eight_devices):
    copies, split = (
        run_on(eight_devices, 3, dtype=jnp.float64, split=split, features=(32, 64)) for split in (False, True)
    )
    assert_close(split, copies, 1e-10)
    largest = max(jax.tree.leaves(split[0].opt_state), key=lambda x: x.size)
    assert largest.addressable_shards[0].data.size == largest.size // 8


@pytest.mark.usefixtures("enable_x64")
def test_stages_that_are_computed_again_give_the_same(one_device):
    plain, again = (run_on(one_device, 2, dtype=jnp.float64, remat_stages=stages) for stages in (0, 1))
    assert_close(again, plain, 1e-10)


def test_only_the_first_stages_are_computed_again():
    def blocks(stages: int) -> int:
        step, state = setup(remat_stages=stages)
        text = str(jax.make_jaxpr(step)(state, batch_at(0)))
        return text.count("checkpoint[") + text.count("remat2[")

    assert 0 == blocks(0) < blocks(1) < blocks(2)


def test_a_chunk_does_what_its_steps_do_one_by_one(one_device):
    step, state = setup()
    chunk = jax.jit(make_chunk(step, 4, over_data(one_device)))
    index = np.stack([batch_at(i).index for i in range(4)])
    epoch = np.stack([batch_at(i).epoch for i in range(4)])
    after, metrics = chunk(state, IMAGES, ASPECTS, LABELS, index, epoch, 3)
    single, losses = state, []
    for i in range(3):
        single, done = jax.jit(step)(single, batch_at(i))
        losses.append(done["loss"])
    assert_close(after, single, 1e-4)
    np.testing.assert_allclose(metrics["loss"][:3], losses, rtol=1e-4)
    assert after.step == 3


def test_chunks_of_any_length_give_the_same_bits(one_device):
    step, start = setup()
    chunk = jax.jit(make_chunk(step, 4, over_data(one_device)))
    index = np.stack([batch_at(i).index for i in range(4)])
    epoch = np.stack([batch_at(i).epoch for i in range(4)])
    at_once, _ = chunk(start, IMAGES, ASPECTS, LABELS, index, epoch, 4)
    state = start
    for begin, count in ((0, 1), (1, 3)):
        state, _ = chunk(state, IMAGES, ASPECTS, LABELS, np.roll(index, -begin, 0), np.roll(epoch, -begin, 0), count)
    for x, y in zip(jax.tree.leaves(at_once), jax.tree.leaves(state), strict=True):
        np.testing.assert_array_equal(x, y)


def test_the_second_step_is_not_traced_again():
    step, state = setup()
    compiled = jax.jit(step, donate_argnums=0)
    for i in range(3):
        state, _ = compiled(state, batch_at(i))
    assert compiled._cache_size() == 1


def test_a_tiny_set_is_learned_by_heart():
    step, state = setup(recipe={"ops": ()})
    compiled = jax.jit(step, donate_argnums=0)
    for i in range(120):
        state, metrics = compiled(state, batch_at(i))
    assert metrics["correct"] == 16
    assert metrics["loss"] / 16 < 0.45  # label smoothing of 0.1 over 4 classes leaves 0.35


def test_the_average_of_the_weights_follows_its_recurrence():
    step, state = setup(recipe={"average": averaging(0.75)})
    compiled, average = jax.jit(step), state.variables
    for t in range(30):
        state, _ = compiled(state, batch_at(t))
        decay = min(0.75, (1 + t) / (10 + t))  # TensorFlow's warm-up, EfficientNet's code
        average = jax.tree.map(lambda old, new, d=decay: d * old + (1 - d) * new, average, state.variables)
    assert_close(state.ema, average, 1e-5)


def test_the_average_soon_forgets_the_initial_weights():
    average, zero = {"w": jnp.ones(())}, {"w": jnp.zeros(())}
    update = jax.jit(averaging(0.9999))
    for t in range(200):
        average = update(average, zero, jnp.int32(t))
    assert average["w"] < 1e-6  # with 0.9999 throughout it would be 0.98


@pytest.mark.parametrize("labels", [LABELS, np.random.default_rng(1).integers(0, 2, (32, 4)).astype(np.float32)])
def test_a_batch_is_mixed_by_seed_and_step_and_smoothed_once(labels):
    recipe = {"loss": SoftmaxCrossEntropy(), "optimizer": optax.sgd(0.1), "schedule": lambda step: 0.1}
    made = Recipe(**recipe, label_smoothing=0.1, mix=Mix(mixup=1.0))
    prepare = jax.jit(make_prepare(made, 4, seed=0))
    batch = replace(batch_at(0), label=labels[:16])
    first, again, other = prepare(batch, 5), prepare(replace(batch, epoch=batch.epoch + 1), 5), prepare(batch, 6)
    np.testing.assert_array_equal(first.image, again.image)
    assert not np.array_equal(first.image, other.image)
    plain = np.asarray(soft_target(batch.label, 4, 0.1))
    mixed = np.asarray(first.target)
    differ = plain != plain[::-1]
    share = ((mixed - plain[::-1])[differ] / (plain - plain[::-1])[differ]).mean()
    np.testing.assert_allclose(mixed, share * plain + (1 - share) * plain[::-1], atol=1e-6)
    np.testing.assert_allclose(first.image, share * batch.image + (1 - share) * batch.image[::-1], atol=0.501)
    np.testing.assert_array_equal(first.label, batch.label)  # what metrics count by


def test_bfloat16_keeps_parameters_in_float32_and_learns():
    step, state = setup(jnp.bfloat16, recipe={"ops": ()})
    compiled = jax.jit(step)
    first = last = None
    for i in range(40):
        state, metrics = compiled(state, batch_at(i))
        first, last = first or float(metrics["loss"]), float(metrics["loss"])
    assert {leaf.dtype for leaf in jax.tree.leaves(state.variables)} == {np.dtype("float32")}
    assert last < first / 2
