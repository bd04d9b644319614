"""Which parameters are treated alike: by their kind, and by the layer that they are in."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax

Group = Sequence[str]  # names of layers under `params`


def kernels(params: Any) -> Any:
    """Returns True for each kernel and False for every bias, scale and the like, in the shape of `params`."""
    return jax.tree_util.tree_map_with_path(lambda path, _: path[-1].key == "kernel", params)


def layer_decay(groups: Sequence[Group], decay: float) -> dict[str, float]:
    """Returns what each layer's learning rate is multiplied by, 1 for the last group and `decay` less before each.

    Args:
        groups: a family's layers from the image to the head, those of one group together.
        decay: 0…1; 1 leaves all rates as they are (Clark et al. 2020, section 3.3; Bao et al. 2022, appendix).
    """
    last = len(groups) - 1
    return {layer: decay ** (last - number) for number, group in enumerate(groups) for layer in group}


def rates_like(params: Mapping[str, Any], rates: Mapping[str, float]) -> Any:
    """Returns each parameter's rate by its layer, in the shape of `params`.

    Raises:
        KeyError: for a layer that has none.
    """
    return {layer: jax.tree.map(lambda _, rate=rates[layer]: rate, tree) for layer, tree in params.items()}
