"""Steps whose gradient is taken a second time (sharpness-aware minimisation), of a network that is quick to compile."""

from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn

from jaxnets.config import resolve
from jaxnets.data.batch import Batch
from jaxnets.models.layers import BatchNorm, Conv
from jaxnets.models.mode import trains
from jaxnets.preprocess import Preprocess
from jaxnets.recipe.freeze import Frozen
from jaxnets.recipe.losses.cross_entropy import SoftmaxCrossEntropy
from jaxnets.recipe.optimizer.sam import Sam
from jaxnets.recipe.optimizer.table import make_optimizer
from jaxnets.recipe.recipe import Recipe
from jaxnets.run.checkpoints import Progress
from jaxnets.train.display import Display
from jaxnets.train.loop import train
from jaxnets.train.mesh import over_data, replicated
from jaxnets.train.saver import Checkpointer
from jaxnets.train.step import init_state, make_train_step
from tests.train.runs import arrays_of, rows_of, short

SAM = Sam(radius=0.3)
FROZEN = Frozen(layers=frozenset({"stem", "norm"}))
PREPROCESS = Preprocess(height=8, width=8, channels=1, mean=(0.5,), std=(0.3,))


class Small(nn.Module):
    """A convolution, a norm, a dense layer, and a head after dropout."""

    dtype: Any = jnp.float32
    group_size: int | None = None
    dropout: float = 0.0
    num_classes: int = 4

    @nn.compact
    def __call__(self, x, *, train=False):
        param = np.promote_types(self.dtype, np.float32)
        x = Conv(8, (3, 3), 4, dtype=self.dtype, param_dtype=param, name="stem")(x)
        x = BatchNorm(train, self.group_size, dtype=self.dtype, param_dtype=param, name="norm")(x)
        dense = partial(nn.Dense, dtype=self.dtype, param_dtype=param)
        x = nn.relu(dense(8, name="inner")(nn.relu(x).mean((1, 2))))
        return dense(4, name="head")(nn.Dropout(self.dropout, deterministic=not trains(train, ["head"]))(x))


def batch_of(size: int) -> Batch:
    random, index = np.random.default_rng(0), np.arange(size, dtype=np.int32)
    image, label = random.integers(0, 256, (size, 8, 8, 1), np.uint8), (index % 4).astype(np.int32)
    return Batch(image, label, index >= 0, index, np.zeros(size, np.int32), np.ones(size, np.float32))


def setup(*, micro_batches=1, sharding=None, optimizer=None, frozen=None, sam=None, **fields):
    """Returns a step that is not compiled yet, and the state before it; plain SGD changes it by -0.1 gradients."""
    made = Recipe(
        loss=SoftmaxCrossEntropy(),
        optimizer=make_optimizer(
            resolve({"optimizer": {"momentum": 0.0, "weight_decay": 0.0, **(optimizer or {})}}).optimizer,
            lambda step: 0.1,
        ),
        schedule=lambda step: 0.1,
        frozen=frozen,
        sam=sam,
    )
    model = Small(**fields)
    step = make_train_step(model, PREPROCESS, made, seed=0, micro_batches=micro_batches, sharding=sharding)
    return step, jax.jit(lambda: init_state(model, PREPROCESS, made, 0))()


def assert_close(a, b, tolerance: float) -> None:
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_allclose(x, y, rtol=tolerance, atol=tolerance)


def change(before, after):
    """Returns the gradient that plain SGD followed, 0 of what is frozen."""
    return jax.tree.map(lambda w, new: (w - new) / 0.1, before.params, after.params)


@pytest.mark.usefixtures("enable_x64")
@pytest.mark.parametrize("frozen", [None, FROZEN])
def test_the_gradient_is_that_where_the_first_one_leads_with_the_same_dropout(frozen):
    fields = {"dtype": jnp.float64, "dropout": 0.5, "frozen": frozen}
    (plain, start), (sharp, _), batch = setup(**fields), setup(sam=SAM, **fields), batch_of(16)
    plain, sharp = jax.jit(plain), jax.jit(sharp)
    first, sums = plain(start, batch)
    gradient = change(start, first)
    norm = optax.tree.norm(gradient)
    moved = replace(start, params=jax.tree.map(lambda w, g: w + 0.3 * g / norm, start.params, gradient))
    second = change(moved, plain(moved, batch)[0])
    found, found_sums = sharp(start, batch)
    assert_close(change(start, found), second, 1e-10)
    assert float(optax.tree.norm(jax.tree.map(jnp.subtract, second, gradient))) > 0.05
    assert_close((found.batch_stats, found_sums), (first.batch_stats, sums), 1e-12)  # they are of the first pass
    for layer in frozen.layers if frozen else ():
        assert_close(found.params[layer], start.params[layer], 0)


def test_every_third_step_takes_two_gradients_in_one_program():
    steps = {
        every: jax.jit(setup(sam=Sam(radius=0.3, every=every) if every else None)[0], donate_argnums=())
        for every in (0, 1, 3)
    }
    state, batch = setup()[1], batch_of(16)
    for number in range(6):
        found, expected = steps[3](state, batch)[0], steps[1 if number in (2, 5) else 0](state, batch)[0]
        assert_close(found.params, expected.params, 1e-6)
        state = found
    assert steps[3]._cache_size() == 1


def test_the_limit_of_the_gradient_is_for_the_second():
    batch = batch_of(16)
    unlimited, limited = (setup(sam=SAM, optimizer={"clip_norm": limit}) for limit in (None, 0.05))
    before = limited[1]
    free, held = (change(before, jax.jit(step)(before, batch)[0]) for step, _ in (unlimited, limited))
    norm = optax.tree.norm(free)
    assert norm > 0.1
    assert_close(held, jax.tree.map(lambda g: g * 0.05 / norm, free), 1e-5)


@pytest.mark.usefixtures("enable_x64")
def test_one_device_gives_what_eight_give_with_micro_batches(one_device, eight_devices):
    found, fields = [], {"dtype": jnp.float64, "group_size": 4, "sam": SAM}
    for mesh, micro_batches in ((one_device, 1), (eight_devices, 4)):
        step, state = setup(micro_batches=micro_batches, sharding=over_data(mesh, axis=1), **fields)
        compiled = jax.jit(step, out_shardings=replicated(mesh))
        batch = jax.device_put(batch_of(32), over_data(mesh))
        state = jax.device_put(state, replicated(mesh))
        for _ in range(2):
            state, sums = compiled(state, batch)
        found.append((state, sums))
    assert_close(*found, 1e-10)


@pytest.mark.parametrize("sam", [None, SAM])
def test_four_micro_batches_of_64_give_what_a_batch_of_256_gives(sam):
    """With batch normalisation in groups of 64."""
    fields, batch = {"sam": sam, "group_size": 64, "optimizer": {"momentum": 0.9, "weight_decay": 0.1}}, batch_of(256)
    whole, divided = (jax.jit(setup(**fields, micro_batches=n)[0]) for n in (1, 4))
    state = setup(**fields)[1]
    assert_close(divided(state, batch), whole(state, batch), 1e-5)


def test_a_gradient_of_zero_leads_nowhere():
    params, zero = {"w": jnp.ones(3)}, {"w": jnp.zeros(3)}
    np.testing.assert_array_equal(SAM.perturbed(params, zero)["w"], params["w"])


def test_steps_from_a_checkpoint_on_give_the_bits_of_those_without_one(tmp_path, one_device):
    step, state = setup(sam=Sam(radius=0.3, every=2), dropout=0.5, optimizer={"momentum": 0.9})
    compiled, batch = jax.jit(step, out_shardings=replicated(one_device)), batch_of(16)
    for _ in range(3):
        state, _ = compiled(state, batch)
    checkpointer = Checkpointer(tmp_path)
    checkpointer.save(state, Progress(step=3))
    checkpointer.close()
    like = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=replicated(one_device)), state)
    restored, _ = Checkpointer(tmp_path).restore(lambda step: like)
    for _ in range(2):  # of one gradient, and of two
        (state, sums), (restored, again) = compiled(state, batch), compiled(restored, batch)
        assert_close((state, sums), (restored, again), 0)


@pytest.mark.slow
def test_a_run_that_is_continued_gives_the_bits_of_the_run_in_one_go(tmp_path, one_device):
    config = {"log_every_steps": 1, "eval_every_steps": 100, "optimizer": {"name": "muon", "sam": 0.05, "sam_every": 2}}
    for run, lengths in (("whole", (6,)), ("parts", (3, 6))):
        for steps in lengths:
            train(short(steps=steps, **config), tmp_path / run, Display(), one_device)
    whole, parts = (arrays_of(tmp_path / run, 6) for run in ("whole", "parts"))
    assert [key for key in whole if not np.array_equal(whole[key], parts[key])] == []
    rows = [[row for row in rows_of(tmp_path / run) if "train/loss" in row] for run in ("whole", "parts")]
    assert rows[0] == rows[1]
