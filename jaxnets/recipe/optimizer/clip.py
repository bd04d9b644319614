"""Limits to the gradient, before all else that is done with it."""

import jax
import optax


def adaptive_clip(limit: float, head: str | None) -> optax.GradientTransformation:
    """Returns adaptive gradient clipping: of each output unit, a norm of at most `limit` times that of its weights.

    A unit is all of a kernel that leads to one output, or a whole bias or scale. Norms of weights count as 1e-3 at
    least. The layer `head` is left as it is (Brock et al. 2021, section 4.1; timm's `adaptive_clip_grad`).
    """

    def but_the_head(params: optax.Params) -> optax.Params:
        return {layer: jax.tree.map(lambda _, of=layer: of != head, tree) for layer, tree in params.items()}

    return optax.masked(optax.adaptive_grad_clip(limit, eps=1e-3), but_the_head)
