"""A training as one value."""

from dataclasses import dataclass

import optax
from jaxtyping import Array, Float

from jaxnets.recipe.augment.cut import Cut
from jaxnets.recipe.augment.op import Op
from jaxnets.recipe.distill import Distillation
from jaxnets.recipe.ema import Average
from jaxnets.recipe.freeze import Frozen
from jaxnets.recipe.losses.imbalance import Rebalance
from jaxnets.recipe.losses.loss import Loss
from jaxnets.recipe.mix import Mix
from jaxnets.recipe.optimizer.sam import Sam
from jaxnets.recipe.prune import Pruning
from jaxnets.recipe.schedule.table import Schedule


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What a training is, from the canvas to the averaged weights; `make_train_step` takes it whole."""

    loss: Loss  # plain, as evaluation has it
    optimizer: optax.GradientTransformation
    schedule: Schedule  # the learning rate that is logged, the optimizer's own
    momentum: Schedule | None = None  # likewise, where it is scheduled
    sam: Sam | None = None  # where the gradient is taken; None: at the parameters
    cut: Cut | None = None  # from the canvas to the size that is trained at; None where they are the same
    ops: tuple[Op, ...] = ()
    mix: Mix | None = None
    label_smoothing: float = 0.0
    rebalance: Rebalance | None = None  # of the classes, in training
    average: Average | None = None
    distillation: Distillation | None = None  # of what a teacher says of the images
    pruning: Pruning | None = None  # of single weights, which become zero on the way
    frozen: Frozen | None = None  # what does not train; the optimizer sees the rest alone

    def training_loss(self, logits: Float[Array, "b classes"], target: Float[Array, "b classes"]) -> Float[Array, " b"]:
        """Returns what training minimises the mean of, for each example."""
        return self.loss(logits, target) if self.rebalance is None else self.rebalance(self.loss, logits, target)
