"""Which parameters are treated alike: by their kind, and by the layer that they are in."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax

Group = Sequence[str]  # names of layers under `params`


def kernels(params: Any) -> Any:
    """Returns True for each kernel and False for every bias, scale and the like, in the shape of `params`."""
    return jax.tree_util.tree_map_with_path(lambda path, _: path[-1].key == "kernel", params)


def layer_rates(groups: Sequence[Group], decay: float, head: float = 1.0) -> dict[str, float] | None:
    """Returns what each layer's learning rate is multiplied by; None where that is 1 for all.

    Args:
        groups: a family's layers from the image to the head, those of one group together; the last is the head.
        decay: 0…1, what each group has of the rate of the one behind it; the head's is whole, and that of the group
            before it `decay` (Clark et al. 2020, section 3.3; Bao et al. 2022, appendix; timm's --layer-decay).
        head: what the head's rate is multiplied by beside.
    """
    if decay == head == 1:
        return None
    last = len(groups) - 1
    rates = {layer: decay ** (last - number) for number, group in enumerate(groups) for layer in group}
    return rates | dict.fromkeys(groups[last], head)


def rates_like(params: Mapping[str, Any], rates: Mapping[str, float]) -> Any:
    """Returns each parameter's rate by its layer, in the shape of `params`.

    Raises:
        KeyError: for a layer that has none.
    """
    return {layer: jax.tree.map(lambda _, rate=rates[layer]: rate, tree) for layer, tree in params.items()}
