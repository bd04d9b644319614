"""One training step, one evaluation step, and many training steps per dispatch: pure functions."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import flax.struct
import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from jaxtyping import Array, Float, Int32, UInt8

from jaxnets import metrics
from jaxnets.data.augment import Augmentation
from jaxnets.data.batch import Batch
from jaxnets.models.conv import plain_convolutions
from jaxnets.models.family import Variables
from jaxnets.preprocess import Preprocess
from jaxnets.train.losses import cross_entropy


@flax.struct.dataclass
class TrainState:
    step: Int32[Array, ""]  # steps done
    variables: Variables
    opt_state: optax.OptState
    ema: Variables | None  # the average of the variables over steps, where one is kept


class StepMetrics(NamedTuple):
    """Sums over the examples of one training step."""

    loss: Float[Array, ""]
    correct: Int32[Array, ""]


class Gradient(NamedTuple):
    """What one batch, or a part of one, says of the state."""

    params: Any  # of the mean loss
    loss: Float[Array, ""]  # the mean
    correct: Int32[Array, ""]  # the sum
    updates: Variables  # of the running statistics


_NOISE = 2**31 - 1  # tells the model's random stream from the augmentation's, which has an epoch's number here

TrainStep = Callable[[TrainState, Batch], tuple[TrainState, StepMetrics]]


def init_state(
    model: nn.Module,
    preprocess: Preprocess,
    optimizer: optax.GradientTransformation,
    seed: int | Array,
    *,
    with_ema: bool,
) -> TrainState:
    """Returns the state before the first step; its values depend on the seed alone."""
    image = jnp.zeros((1, preprocess.height, preprocess.width, preprocess.channels), jnp.float32)
    with plain_convolutions():  # their values are not asked for
        variables: Any = model.init(jax.random.key(seed), image, train=False)
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        variables=variables,
        opt_state=optimizer.init(variables["params"]),
        ema=jax.tree.map(jnp.copy, variables) if with_ema else None,
    )


def make_train_step(
    model: nn.Module,
    preprocess: Preprocess,
    optimizer: optax.GradientTransformation,
    *,
    dtype: Any,
    seed: int,
    augmentation: Augmentation,
    label_smoothing: float = 0.0,
    ema_decay: float | None = None,
    parts: int = 1,
    part_sharding: jax.sharding.Sharding | None = None,
) -> TrainStep:
    """Returns the function that takes a state and a full batch of uint8 images to the next state.

    With `parts`, a batch is computed in as many equal parts one after the other, for the same result but for dropout
    and stochastic depth, which draw anew for each part. BatchNorm's groups must fit into a part. `part_sharding` is
    that of the arrays `[parts, b / parts, …]`.
    """

    def gradient_of(variables: Variables, batch: Batch, noise: Array) -> Gradient:
        x = preprocess.normalise(augmentation(batch, seed), dtype)

        def loss_of(params: Any) -> tuple[Array, tuple[Array, Any]]:
            logits, updates = model.apply(
                {**variables, "params": params}, x, train=True, mutable=["batch_stats"], rngs={"dropout": noise}
            )
            return cross_entropy(logits, batch.label, label_smoothing).mean(), (logits, updates)

        (loss, (logits, updates)), params = jax.value_and_grad(loss_of, has_aux=True)(variables["params"])
        correct = (logits.argmax(-1) == batch.label).sum(dtype=jnp.int32)
        return Gradient(params=params, loss=loss, correct=correct, updates=updates)

    def train_step(state: TrainState, batch: Batch) -> tuple[TrainState, StepMetrics]:
        noise = jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), _NOISE), state.step)
        gradient = partial(gradient_of, state.variables)
        params = state.variables["params"]
        found = gradient(batch, noise) if parts == 1 else accumulate(gradient, batch, noise, parts, part_sharding)
        change, opt_state = optimizer.update(found.params, state.opt_state, params)
        variables = {"params": optax.apply_updates(params, change), **found.updates}
        ema = state.ema
        if ema is not None and ema_decay is not None:
            ema = optax.incremental_update(variables, ema, 1 - ema_decay)
        done = StepMetrics(loss=found.loss * len(batch.label), correct=found.correct)
        return TrainState(step=state.step + 1, variables=variables, opt_state=opt_state, ema=ema), done

    return train_step


def accumulate(
    gradient: Callable[[Batch, Array], Gradient],
    batch: Batch,
    noise: Array,
    parts: int,
    sharding: jax.sharding.Sharding | None = None,
) -> Gradient:
    """Returns the gradient of a batch from those of its `parts`, computed one after the other.

    Each sees the same state, so that the mean of the parts' running statistics is what the whole batch would give.
    `sharding` is that of the parts `[parts, b / parts, …]`.
    """
    split = jax.tree.map(lambda x: x.reshape(parts, -1, *x.shape[1:]), batch)
    if sharding is not None:
        split = jax.lax.with_sharding_constraint(split, sharding)
    first = jax.tree.map(lambda x: x[0], split)
    nothing = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(gradient, first, noise))

    def add(total: Gradient, part: tuple[Array, Batch]) -> tuple[Gradient, None]:
        number, examples = part
        return jax.tree.map(jnp.add, total, gradient(examples, jax.random.fold_in(noise, number))), None

    total, _ = jax.lax.scan(add, nothing, (jnp.arange(parts), split))
    return jax.tree.map(lambda x: x / parts if jnp.issubdtype(x.dtype, jnp.floating) else x, total)


def make_chunk(
    step: TrainStep, max_steps: int, batch_sharding: jax.sharding.Sharding
) -> Callable[..., tuple[TrainState, StepMetrics]]:
    """Returns a function that runs up to `max_steps` steps on images that are on the device already.

    It is `(state, images, labels, index, epoch, count) -> (state, metrics)` with `index` and `epoch` `[max_steps, b]`,
    of which the first `count` rows are used, and metrics `[max_steps]`. The loop's length is a traced number, so that
    one compiled program, and with it one rounding, serves chunks of every length.
    """

    def chunk(
        state: TrainState,
        images: UInt8[Array, "n h w c"],
        labels: Int32[Array, " n"],
        index: Int32[Array, "k b"],
        epoch: Int32[Array, "k b"],
        count: Int32[Array, ""],
    ) -> tuple[TrainState, StepMetrics]:
        def body(i: Array, carry: tuple[TrainState, StepMetrics]) -> tuple[TrainState, StepMetrics]:
            state, done = carry
            chosen = index[i]
            batch = Batch(images[chosen], labels[chosen], jnp.ones(chosen.shape, bool), chosen, epoch[i])
            state, this = step(state, jax.lax.with_sharding_constraint(batch, batch_sharding))
            return state, jax.tree.map(lambda all_steps, x: all_steps.at[i].set(x), done, this)

        wide = jax.tree.leaves(state.variables["params"])[0].dtype
        empty = StepMetrics(loss=jnp.zeros(max_steps, wide), correct=jnp.zeros(max_steps, jnp.int32))
        return jax.lax.fori_loop(0, count, body, (state, empty))

    return chunk


def make_eval_step(model: nn.Module, preprocess: Preprocess, dtype: Any) -> Callable[[Variables, Batch], metrics.Sums]:
    """Returns the function that takes variables and a masked batch to sums of the metrics."""

    def eval_step(variables: Variables, batch: Batch) -> metrics.Sums:
        logits: Any = model.apply(variables, preprocess.normalise(batch.image, dtype), train=False)
        return metrics.sums(logits, batch.label, batch.mask, cross_entropy(logits, batch.label))

    return eval_step
