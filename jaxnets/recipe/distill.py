"""Distillation: a network learns what another one says of the images, beside or in place of their labels."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, UInt8

from jaxnets.models.family import Variables
from jaxnets.schema import NonNegative, Positive


@dataclass(frozen=True, kw_only=True)
class DistillConfig:
    # A run directory, hf:OWNER/REPO, a file of weights or the name of a model whose weights are known, as jaxnets.load
    # takes them; None: no distillation.
    teacher: str | None = None
    kind: Literal["kl"] = "kl"  # Hinton et al. 2015: T² · KL(teacher ‖ student), both softened by the temperature T
    temperature: Positive = 4.0  # T, that the logits of both are divided by
    weight: NonNegative = 1.0  # of that term
    task_weight: NonNegative = 1.0  # of the loss on the labels; 0: the teacher alone is learned from
    # names: the teacher's classes are found by their names; order: they are taken as the data's, in their order.
    classes: Literal["names", "order"] = "names"
    teacher_weights: str | None = None  # checksum of the teacher's weights, that a run notes; given, it is checked


@dataclass(frozen=True, kw_only=True)
class Distillation:
    """The loss of a network that has a teacher: task_weight · task + weight · T² · KL(teacher ‖ student).

    With the weights 1 and 1 it is timm's `LogitDistillationTask`; big_vision's has T = 1 and no task.

    Attributes:
        logits: what the teacher says of images as the student sees them, augmented and mixed, in the order of the
            student's classes; it normalises them in its own way and computes as in evaluation.
    """

    logits: Callable[[Variables, UInt8[Array, "b h w c"]], Float[Array, "b classes"]]
    temperature: float
    weight: float
    task_weight: float

    def __call__(
        self, task: Float[Array, " b"], student: Float[Array, "b classes"], teacher: Float[Array, "b classes"]
    ) -> Float[Array, " b"]:
        """Returns each example's loss from its loss on the labels and the logits of both."""
        return self.task_weight * task + self.weight * divergence(student, teacher, self.temperature)


def divergence(
    student: Float[Array, "b classes"], teacher: Float[Array, "b classes"], temperature: float
) -> Float[Array, " b"]:
    """Returns T² · Σ p (log p − log q) with p and q the softmax of the teacher's and the student's logits over T.

    T² makes up for the gradient, which is in proportion to 1 / T² (Hinton et al. 2015, section 2).
    """
    log_p = jax.nn.log_softmax(jax.lax.stop_gradient(teacher).astype(student.dtype) / temperature)
    log_q = jax.nn.log_softmax(student / temperature)
    return temperature**2 * (jnp.exp(log_p) * (log_p - log_q)).sum(-1)
