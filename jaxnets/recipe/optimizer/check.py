"""What an optimizer's keys may not say together, and which of them say nothing."""

from jaxnets.errors import UserError
from jaxnets.recipe.optimizer.table import OptimizerConfig

_DEFAULT = OptimizerConfig()
CYCLED = ("sgd", "adamw")  # whose momentum a schedule can change
_FORMS = ("sgd", "adamw", "rmsprop", "lion")  # whose decay can be coupled or not
_BY_TRUST = ("lamb", "lars")  # whose decay is part of what the trust ratio scales


def check_optimizer(spec: OptimizerConfig) -> None:
    """Refuses keys that contradict each other.

    Raises:
        UserError: that names them.
    """
    rate, per_256 = spec.learning_rate, spec.learning_rate_per_256
    if per_256 is not None and rate not in (None, _DEFAULT.learning_rate):
        raise UserError(
            f"config.optimizer.learning_rate {rate:g} and config.optimizer.learning_rate_per_256 {per_256:g} both say "
            f"the rate: leave one of them out (None)"
        )
    if rate is None and per_256 is None:
        raise UserError("config.optimizer.learning_rate is None: give it, or config.optimizer.learning_rate_per_256")
    if spec.name in _BY_TRUST and not spec.weight_decay and not getattr(spec, spec.name).always_adapt:
        raise UserError(
            f"config.optimizer.name {spec.name} adapts the rate of the tensors that decay, and with "
            f"config.optimizer.weight_decay 0 there are none: give a decay, or set "
            f"config.optimizer.{spec.name}.always_adapt"
        )


def effects(spec: OptimizerConfig) -> list[tuple[str, bool, str]]:
    """Returns which keys have an effect, as (what they begin with, whether they have one, why not)."""
    name, why = spec.name, f"optimizer.name is {spec.name}"
    plain = spec.muon.fallback if name == "muon" else name
    if name == "muon":
        why += f" with {plain} for the rest"
    decays = bool(spec.weight_decay)
    return [
        *((f"optimizer.{key}", plain == "sgd", why) for key in ("momentum", "nesterov")),
        *((f"optimizer.{key}", plain == "adamw", why) for key in ("beta1", "beta2", "epsilon")),
        *((f"optimizer.{key}.", name == key, why) for key in ("rmsprop", "lamb", "lars", "lion", "muon")),
        ("optimizer.decay_form", name in _FORMS, why),
        ("optimizer.decay_by", name not in _BY_TRUST, why),
        *((f"optimizer.decay_{key}", decays, "optimizer.weight_decay is 0") for key in ("on", "form", "by")),
        ("optimizer.sam_every", spec.sam is not None, "optimizer.sam is not set"),
    ]
