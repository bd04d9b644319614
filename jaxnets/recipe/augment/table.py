"""The ops that a config can name, in the order in which they are applied."""

from dataclasses import dataclass, field, fields

from jaxnets.recipe.augment.flip import Flip
from jaxnets.recipe.augment.op import Op
from jaxnets.recipe.augment.pad_and_crop import PadAndCrop
from jaxnets.recipe.augment.posterize import Posterize


@dataclass(frozen=True, kw_only=True)
class AugmentConfig:
    """Each op's parameters; with the defaults none changes anything. The order of the fields is that of the ops."""

    pad_and_crop: PadAndCrop = field(default_factory=PadAndCrop)
    flip: Flip = field(default_factory=Flip)
    posterize: Posterize = field(default_factory=Posterize)


def ops(spec: AugmentConfig) -> tuple[Op, ...]:
    """Returns the ops whose parameters were changed from those that do nothing."""
    named = [(entry, getattr(spec, entry.name)) for entry in fields(spec)]
    return tuple(op for entry, op in named if op != type(op)())
