"""Weight decay: of which parameters, how much, and where it is added."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import jax
import optax
from flax.traverse_util import flatten_dict, unflatten_dict

from jaxnets.recipe.freeze import of_norm
from jaxnets.recipe.groups import rates_like
from jaxnets.recipe.optimizer.course import Course

On = Literal["kernels", "no_norms", "no_scales", "all"]
Form = Literal["coupled", "decoupled"]
By = Literal["rate", "schedule"]


@dataclass(frozen=True, kw_only=True)
class Decay:
    """What weight decay is, whatever rule it goes with.

    Coupled decay is part of the gradient, so that it passes through momentum and moments (the L2 penalty
    ½·weight·‖w‖²); decoupled decay is added to what the rule makes of the gradient (Loshchilov & Hutter 2019). Both are
    multiplied by the rate. By the schedule, the weight is divided by the peak of the parameter's own rate before, so
    that only the schedule's share of the peak is left of it, as in big_vision and airbench.
    """

    weight: float
    on: On
    form: Form
    by: By = "rate"

    @property
    def coupled(self) -> bool:
        return self.form == "coupled"

    def decayed(self, params: Any) -> Any:
        """Returns True for each parameter that decays, in the shape of `params`; for none where the weight is 0."""
        flat = flatten_dict(params)
        found = {path: bool(self.weight) and _decays(path, flat, self.on) for path in flat}
        return unflatten_dict(found)

    def along(self, course: Course) -> optax.GradientTransformation:
        """Returns what adds the decay to an update that is then multiplied by the rates of a course."""
        if self.by == "rate":
            return optax.add_decayed_weights(self.weight, mask=self._mask())
        weight = self.weight / (course.peak * course.factor)
        if course.by_layer is None:
            return optax.add_decayed_weights(weight, mask=self._mask())
        by_layer = course.by_layer

        def added(updates: optax.Updates, params: Any) -> optax.Updates:
            return jax.tree.map(
                lambda u, w, decays, rate: u + weight / rate * w if decays else u,
                updates,
                params,
                self.decayed(params),
                rates_like(params, by_layer),
            )

        return optax.stateless(added)

    def _mask(self) -> Callable[[Any], Any]:
        return lambda params: self.decayed(params)


def _decays(path: tuple[str, ...], flat: dict[tuple[str, ...], Any], on: On) -> bool:
    if on == "kernels":
        return path[-1] == "kernel"
    if on == "no_scales":
        return path[-1] != "scale"
    return on == "all" or not of_norm(path, flat)
