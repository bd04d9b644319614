"""One training step, one evaluation step, and many training steps per dispatch: pure functions."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import flax.struct
import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from jaxtyping import Array, Float, Float32, Int32, Key, UInt8

from jaxnets.data.batch import Batch
from jaxnets.metrics import table
from jaxnets.metrics.metric import Metric, Outcome, Sums, Update, sums_of
from jaxnets.models.conv import plain_convolutions
from jaxnets.models.family import Variables
from jaxnets.models.forward import forward
from jaxnets.models.mode import Train
from jaxnets.preprocess import Preprocess
from jaxnets.recipe.augment.op import augment, keys_of
from jaxnets.recipe.freeze import join, split
from jaxnets.recipe.losses.loss import Loss, soft_target
from jaxnets.recipe.recipe import Recipe


@flax.struct.dataclass
class TrainState:
    step: Int32[Array, ""]  # steps done
    params: Any
    batch_stats: Any  # running statistics; empty for a model that has none
    opt_state: optax.OptState  # of the parameters that train
    ema: Variables | None  # the average of the variables over steps, where one is kept
    teacher: Variables | None = None  # those of the network that this one learns from; no checkpoint holds them

    @property
    def variables(self) -> Variables:
        return as_variables(self.params, self.batch_stats)

    @property
    def chosen(self) -> Variables:
        """The variables that are to be used: the average, where one is kept."""
        return self.variables if self.ema is None else self.ema


def as_variables(params: Any, batch_stats: Any) -> Variables:
    """Returns a model's variables; a collection that is empty is left out."""
    return {"params": params, **({"batch_stats": batch_stats} if batch_stats else {})}


class Prepared(NamedTuple):
    """A batch as the model sees it: augmented and mixed, with targets."""

    image: UInt8[Array, "b h w c"]
    target: Float[Array, "b classes"]
    label: Int32[Array, " b"] | Float32[Array, "b classes"]


class Gradient(NamedTuple):
    """What one batch, or a micro-batch, says of the state."""

    params: Any  # of the mean loss, in those that train
    batch_stats: Any  # as this batch leaves them, those that follow it
    sums: Sums


# Numbers that tell the streams of one step from each other and from those of the examples, which fold an epoch here.
_DROPOUT, _MIX = 2**31 - 1, 2**31 - 2

TrainStep = Callable[[TrainState, Batch], tuple[TrainState, Sums]]


def init_state(model: nn.Module, preprocess: Preprocess, recipe: Recipe, seed: int | Array) -> TrainState:
    """Returns the state before the first step; its values depend on the seed alone."""
    image = jnp.zeros((1, preprocess.height, preprocess.width, preprocess.channels), jnp.float32)
    with plain_convolutions():  # their values are not asked for
        variables: Any = model.init(jax.random.key(seed), image, train=False)
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=variables["params"],
        batch_stats=variables.get("batch_stats", {}),
        opt_state=recipe.optimizer.init(split(recipe.frozen, dict(variables))[0]["params"]),
        ema=jax.tree.map(jnp.copy, dict(variables)) if recipe.average else None,
    )


def step_key(seed: int, step: Array | int) -> Key[Array, ""]:
    """Returns the key of what a step draws for its batch as a whole."""
    return jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), _DROPOUT), step)


def cut_number(recipe: Recipe) -> int:
    """Returns the number that the cut's keys are folded from, after those of the ops."""
    return len(recipe.ops)


def make_prepare(recipe: Recipe, classes: int, seed: int) -> Callable[[Batch, Int32[Array, ""] | int], Prepared]:
    """Returns the function that takes a batch, and the steps done, to what the model sees: cut, ops, target, mix."""

    def prepare(batch: Batch, step: Int32[Array, ""] | int) -> Prepared:
        image, target = batch.image, soft_target(batch.label, classes, recipe.label_smoothing)
        if recipe.cut is not None:
            keys = keys_of(cut_number(recipe), seed=seed, epoch=batch.epoch, index=batch.index)
            image = recipe.cut(keys, image, batch.aspect)
        image = augment(recipe.ops, image, seed=seed, epoch=batch.epoch, index=batch.index)
        if recipe.mix is not None:
            key = jax.random.fold_in(step_key(seed, step), _MIX)
            image, target = recipe.mix(key, step, image, target)
        return Prepared(image, target, batch.label)

    return prepare


def make_train_step(
    model: nn.Module,
    preprocess: Preprocess,
    recipe: Recipe,
    *,
    seed: int,
    micro_batches: int = 1,
    sharding: jax.sharding.Sharding | None = None,
    metrics: Sequence[Metric] = (),
) -> TrainStep:
    """Returns the function that takes a state and a full batch of uint8 images to the next state and the sums.

    The recipe is followed from the canvas to the averaged weights: cut, ops, target, mix, loss, gradient, optimizer,
    average. With `recipe.sam` the gradient is taken a second time, where the first one leads: of the same examples with
    the same dropout, while statistics and sums are those of the first.

    With several `micro_batches`, their gradients are computed one after the other, for the same result but for dropout
    and stochastic depth, which draw anew for each; BatchNorm's groups must fit into a micro-batch, and `sharding` is
    that of the arrays `[micro_batches, b / micro_batches, …]`. `metrics` are of a step, beside those of its examples
    (`jaxnets.metrics.table`), and of the gradient that the optimizer sees.

    What `recipe.frozen` names is no argument of the gradient, so that no pass back to it is computed, and comes out
    as it went in, in the averaged weights too. Of a teacher, whose variables are part of the state, nothing changes.

    With `recipe.pruning`, a weight that is pruned is zero from then on, in the averaged weights too: it has no
    gradient, and whatever momentum or decay make of it is undone.
    """
    classes: int = model.num_classes
    dtype: Any = model.dtype
    pruning = recipe.pruning

    prepare = make_prepare(recipe, classes, seed)
    frozen, distillation = recipe.frozen, recipe.distillation
    mode: Train = True if frozen is None else frozen.mode

    def gradient_of(
        variables: Variables, teacher: Variables | None, examples: Prepared, dropout: Key[Array, ""]
    ) -> Gradient:
        x = preprocess.normalise(examples.image, dtype)
        changing, kept = split(frozen, variables)
        taught: Any = None
        if distillation is not None:
            assert teacher is not None
            taught = distillation.logits(teacher, examples.image)

        def loss_of(params: Any) -> tuple[Array, tuple[Array, Array, Any]]:
            logits, updated = model.apply(
                join({**changing, "params": params}, kept),
                x,
                train=mode,
                mutable=["batch_stats"],
                rngs={"dropout": dropout},
            )
            loss = recipe.training_loss(logits, examples.target)
            if distillation is not None:
                loss = distillation(loss, logits, taught)
            return loss.mean(), (loss, logits, updated)

        gradient, (loss, logits, updated) = jax.grad(loss_of, has_aux=True)(changing["params"])
        batch_stats = split(frozen, updated)[0].get("batch_stats", {})
        outcome = Outcome(logits, examples.label, jnp.ones(len(loss), bool), loss)
        return Gradient(gradient, batch_stats, sums_of(table.TRAINING, outcome))

    def train_step(state: TrainState, batch: Batch) -> tuple[TrainState, Sums]:
        key = step_key(seed, state.step)
        examples = prepare(batch, state.step)

        def gradient_at(variables: Variables) -> Gradient:
            of_batch = partial(gradient_of, variables, state.teacher)
            found = accumulate(of_batch, examples, key, micro_batches, sharding)
            return found if pruning is None else found._replace(params=pruning.kept(found.params, state.params))

        found = gradient_at(state.variables)
        changing, kept = split(frozen, state.variables)
        gradient = found.params
        if (sam := recipe.sam) is not None:

            def sharp() -> Any:
                moved = {**changing, "params": sam.perturbed(changing["params"], found.params)}
                return gradient_at(join(moved, kept)).params

            gradient = sharp() if sam.every == 1 else jax.lax.cond(sam.due(state.step), sharp, lambda: found.params)
        updates, opt_state = recipe.optimizer.update(gradient, state.opt_state, changing["params"])
        params = optax.apply_updates(changing["params"], updates)
        if pruning is not None:
            params = pruning(pruning.kept(params, changing["params"]), state.step + 1)
        changed = as_variables(params, found.batch_stats)
        ema = state.ema
        if ema is not None and recipe.average is not None:
            average, kept_average = split(frozen, ema)
            average = recipe.average(average, changed, state.step)
            if pruning is not None:  # what was pruned now is still in it
                average = {**average, "params": pruning.kept(average["params"], params)}
            ema = join(average, kept_average)
        sums = found.sums | sums_of(metrics, Update(gradient=gradient, params=changing["params"]))
        variables = join(changed, kept)
        next_state = TrainState(
            step=state.step + 1,
            params=variables["params"],
            batch_stats=variables.get("batch_stats", {}),
            opt_state=opt_state,
            ema=ema,
            teacher=state.teacher,
        )
        return next_state, sums

    return train_step


def accumulate(
    gradient: Callable[[Prepared, Key[Array, ""]], Gradient],
    examples: Prepared,
    key: Key[Array, ""],
    micro_batches: int,
    sharding: jax.sharding.Sharding | None = None,
) -> Gradient:
    """Returns the gradient of a batch from those of its micro-batches, computed one after the other.

    Each sees the same state, so that the mean of their running statistics is what the whole batch would give.
    `sharding` is that of the micro-batches `[micro_batches, b / micro_batches, …]`.
    """
    if micro_batches == 1:
        return gradient(examples, key)
    split = jax.tree.map(lambda x: x.reshape(micro_batches, -1, *x.shape[1:]), examples)
    if sharding is not None:
        split = jax.lax.with_sharding_constraint(split, sharding)
    first = jax.tree.map(lambda x: x[0], split)
    nothing = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(gradient, first, key))

    def add(total: Gradient, micro_batch: tuple[Array, Prepared]) -> tuple[Gradient, None]:
        number, those = micro_batch
        return jax.tree.map(jnp.add, total, gradient(those, jax.random.fold_in(key, number))), None

    total, _ = jax.lax.scan(add, nothing, (jnp.arange(micro_batches), split))
    params, batch_stats = jax.tree.map(lambda x: x / micro_batches, (total.params, total.batch_stats))
    return Gradient(params, batch_stats, total.sums)


def make_chunk(
    step: TrainStep, max_steps: int, batch_sharding: jax.sharding.Sharding
) -> Callable[..., tuple[TrainState, Sums]]:
    """Returns a function that runs up to `max_steps` steps on images that are on the device already.

    It is `(state, images, aspects, labels, index, epoch, count) -> (state, sums)` with `index` and `epoch`
    `[max_steps, b]`, of which the first `count` rows are used, and sums `[max_steps]`. The loop's length is a traced
    number, so that one compiled program, and with it one rounding, serves chunks of every length.
    """
    step = jax.jit(step)  # traced once, for the shapes of its sums and for the loop

    def chunk(
        state: TrainState,
        images: UInt8[Array, "n h w c"],
        aspects: Float32[Array, " n"],
        labels: Int32[Array, " n"] | UInt8[Array, "n classes"],
        index: Int32[Array, "k b"],
        epoch: Int32[Array, "k b"],
        count: Int32[Array, ""],
    ) -> tuple[TrainState, Sums]:
        def batch_at(i: Array | int) -> Batch:
            chosen = index[i]
            batch = Batch(
                image=images[chosen],
                label=labels[chosen].astype(jnp.int32 if labels.ndim == 1 else jnp.float32),
                mask=jnp.ones(chosen.shape, bool),
                index=chosen,
                epoch=epoch[i],
                aspect=aspects[chosen],
            )
            return jax.lax.with_sharding_constraint(batch, batch_sharding)

        def body(i: Array, carry: tuple[TrainState, Sums]) -> tuple[TrainState, Sums]:
            state, done = carry
            state, this = step(state, batch_at(i))
            return state, jax.tree.map(lambda all_steps, x: all_steps.at[i].set(x), done, this)

        _, sums = jax.eval_shape(lambda: step(state, batch_at(0)))
        empty = {name: jnp.zeros((max_steps, *x.shape), x.dtype) for name, x in sums.items()}
        return jax.lax.fori_loop(0, count, body, (state, empty))

    return chunk


def make_eval_step(
    model: nn.Module,
    preprocess: Preprocess,
    loss: Loss,
    metrics: Sequence[Metric] = table.EVALUATION,
    thresholds: Sequence[float] | None = None,
) -> Callable[[Variables, Batch], Sums]:
    """Returns the function that takes variables and a masked batch to the sums of the metrics.

    `thresholds` are those of the classes where an image may have several, None for one half.
    """

    def eval_step(variables: Variables, batch: Batch) -> Sums:
        logits = forward(model, preprocess, variables, batch.image)
        target = soft_target(batch.label, logits.shape[-1])
        return sums_of(metrics, Outcome(logits, batch.label, batch.mask, loss(logits, target), thresholds))

    return eval_step
