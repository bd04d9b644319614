"""Averaged weights: an exponential moving average, and how each library lets it begin.

    average ← average + share · (variables − average)

`share` is 1 − decay once the average is warm. At the beginning it is larger, or the initial weights would stay in the
average: 0.9999 from the first step on still holds 61 % of them after 5,000 steps.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int32

from jaxnets.models.family import Variables
from jaxnets.schema import BetweenZeroAndOne, Count, Natural, Positive

Share = Callable[[Float[Array, ""]], Float[Array, ""]]  # steps done before -> weight of the new value


@dataclass(frozen=True, kw_only=True)
class TimmWarmup:
    gamma: Positive = 1.0  # γ: averages that make the warm-up's unit
    power: Positive | None = 2 / 3  # timm advises 3/4 for short runs; None: no warm-up but for the copies at first
    after_steps: Natural = 0  # steps in which the average stays a copy


@dataclass(frozen=True, kw_only=True)
class EmaConfig:
    """Which average of the weights is kept, and the parameters of each warm-up; a warm-up's group has its name."""

    decay: BetweenZeroAndOne | None = None  # weight of the old value, once it is warm; None: no average
    # Of the share that the old value has at first: tensorflow: (1 + n) / (10 + n) after n averages; timm: 1 − (1 +
    # n/γ)^−power (its ModelEmaV3); torchvision: a copy during the warm-up of the rate, then a decay that is made to fit
    # batch_size, every_steps and the epochs (its references); none: decay from the first step on.
    warmup: Literal["tensorflow", "timm", "torchvision", "none"] = "tensorflow"
    every_steps: Count = 1  # steps from one average to the next, from the first step on
    timm: TimmWarmup = field(default_factory=TimmWarmup)


@dataclass(frozen=True, kw_only=True)
class Average:
    """The moving average of weights and running statistics."""

    share: Share
    every_steps: int = 1  # the first step averages, and then each that comes so many after it

    def __call__(self, average: Variables, variables: Variables, step: Int32[Array, ""]) -> Variables:
        """Returns the average after a step that came after `step` others and led to these variables."""

        def follow(average: Variables) -> Variables:
            shares = {x.dtype: self.share(step.astype(x.dtype)) for x in jax.tree.leaves(variables)}
            return jax.tree.map(lambda old, new: _towards(old, new, shares[new.dtype]), average, variables)

        if self.every_steps == 1:
            return follow(average)
        return jax.lax.cond(step % self.every_steps == 0, follow, lambda average: average, average)


def _towards(old: Array, new: Array, share: Float[Array, ""]) -> Array:
    """Returns old + share · (new − old), and `new` to the bit where the share is 1.

    What is rounded is the share itself: the float32 nearest to 0.9999 leaves 1.00017e-4 in place of 1e-4.
    """
    return jnp.where(share < 0.5, old + share * (new - old), new - (1 - share) * (new - old))


def make_average(spec: EmaConfig, *, batch_size: int, epochs: float, warmup_steps: int) -> Average | None:
    """Returns the average that a config asks for; None where it asks for none.

    Args:
        spec: the group.
        batch_size: examples a step, over all devices.
        epochs: the run's length.
        warmup_steps: of the learning rate.
    """
    if spec.decay is None:
        return None
    share = _SHARES[spec.warmup](spec, 1 - spec.decay, batch_size, epochs, warmup_steps)
    return Average(share=share, every_steps=spec.every_steps)


def _constant(spec: EmaConfig, share: float, *_: Any) -> Share:
    return lambda step: jnp.asarray(share, step.dtype)


def _tensorflow(spec: EmaConfig, share: float, *_: Any) -> Share:
    """min(decay, (1 + n) / (10 + n)), as `tf.train.ExponentialMovingAverage` with `num_updates` n."""
    return lambda step: jnp.maximum(jnp.asarray(share, step.dtype), 9 / (10 + step // spec.every_steps))


def _timm(spec: EmaConfig, share: float, *_: Any) -> Share:
    """`timm.utils.ModelEmaV3.get_decay`, which counts the step that is averaged."""
    own = spec.timm

    def share_at(step: Float[Array, ""]) -> Float[Array, ""]:
        after = jnp.maximum(step - own.after_steps, 0)
        warm = jnp.asarray(share, step.dtype)
        if own.power is not None:
            warm = jnp.maximum(warm, (1 + after // spec.every_steps / own.gamma) ** -own.power)
        return jnp.where(after > 0, warm, 1)

    return share_at


def _torchvision(spec: EmaConfig, share: float, batch_size: int, epochs: float, warmup_steps: int) -> Share:
    """As `references/classification/train.py`, whose decay is that of one average an epoch with a batch of 1.

    Its steps are counted anew in each epoch, ours over the run.
    """
    adjusted = min(1.0, share * batch_size * spec.every_steps / epochs)
    # A copy is what an average becomes that was reset before: the first, and the one after the warm-up's last.
    copies = warmup_steps + spec.every_steps

    def share_at(step: Float[Array, ""]) -> Float[Array, ""]:
        return jnp.where(step < copies, 1, jnp.asarray(adjusted, step.dtype))

    return share_at


_SHARES = {"none": _constant, "tensorflow": _tensorflow, "timm": _timm, "torchvision": _torchvision}
