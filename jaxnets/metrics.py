"""Additive metrics: sums over examples with the mask applied, divided once at the end."""

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int32

TOP5_CLASSES = 6  # with fewer classes, the best five say nothing


@flax.struct.dataclass
class Sums:
    """Sums over the examples of one batch or many; two of them add up field by field."""

    count: Int32[Array, ""]
    loss: Float[Array, ""]
    correct: Int32[Array, ""]
    top5: Int32[Array, ""]
    class_count: Int32[Array, " classes"]
    class_correct: Int32[Array, " classes"]


def sums(
    logits: Float[Array, "b classes"], label: Int32[Array, " b"], mask: Bool[Array, " b"], loss: Float[Array, " b"]
) -> Sums:
    """Returns the sums over the examples where `mask` is True; `loss` is per example."""
    classes = logits.shape[-1]
    correct = mask & (jnp.argmax(logits, -1) == label)
    best = jax.lax.top_k(logits, min(5, classes))[1]
    return Sums(
        count=mask.sum(dtype=jnp.int32),
        loss=jnp.where(mask, loss, 0).sum(),
        correct=correct.sum(dtype=jnp.int32),
        top5=(mask & (best == label[:, None]).any(-1)).sum(dtype=jnp.int32),
        class_count=jnp.zeros(classes, jnp.int32).at[label].add(mask.astype(jnp.int32)),
        class_correct=jnp.zeros(classes, jnp.int32).at[label].add(correct.astype(jnp.int32)),
    )


class Totals:
    """Adds up `Sums` on the host, in 64 bits."""

    def __init__(self) -> None:
        self._total: Sums | None = None

    def add(self, more: Sums) -> None:
        wide = jax.tree.map(_widen, more)
        self._total = wide if self._total is None else jax.tree.map(np.add, self._total, wide)

    def result(self) -> Sums:
        if self._total is None:
            raise ValueError("nothing was added")
        return self._total


def _widen(x: Array) -> np.ndarray:
    values = np.asarray(x)
    return values.astype(np.float64 if values.dtype.kind == "f" else np.int64)


def summarise(total: Sums) -> dict[str, float | int]:
    """Returns accuracy, loss, count and, where there are more than 5 classes, top5; ratios are NaN without examples."""
    count = int(total.count)
    divisor = count or float("nan")
    summary: dict[str, float | int] = {
        "accuracy": float(total.correct) / divisor,
        "loss": float(total.loss) / divisor,
        "count": count,
    }
    if len(total.class_count) >= TOP5_CLASSES:
        summary["top5"] = float(total.top5) / divisor
    return summary
