"""The network that model.json describes."""

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxnets.errors import UserError
from jaxnets.models.registry import create_model
from jaxnets.run.directory import ModelCard


def build_model(card: ModelCard) -> nn.Module:
    """Returns the module that model.json describes; one in float64 switches JAX to 64 bits for the whole process.

    Raises:
        UserError: if it describes none that is known.
    """
    try:
        fields = {**card.fields, "dtype": jnp.dtype(card.fields["dtype"])}
    except (KeyError, TypeError) as error:
        raise UserError(
            f"model.json gives the model no dtype that is known ({error}): restore it from a copy"
        ) from error
    if fields["dtype"] == jnp.float64:
        jax.config.update("jax_enable_x64", True)
    return create_model(card.name, preprocess=card.preprocess, **fields)
