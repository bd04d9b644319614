"""The ops that a config can name, in the order in which they are applied."""

from dataclasses import dataclass, field, fields

from jaxnets.preprocess import Preprocess
from jaxnets.recipe.augment.augmix import AugMix
from jaxnets.recipe.augment.color_jitter import ColorJitter
from jaxnets.recipe.augment.cut import CentreCut, Cut, filter_of
from jaxnets.recipe.augment.cutout import Cutout
from jaxnets.recipe.augment.erasing import Erasing
from jaxnets.recipe.augment.flip import Flip
from jaxnets.recipe.augment.grey import Grey
from jaxnets.recipe.augment.op import Op, Unbound
from jaxnets.recipe.augment.pad_and_crop import PadAndCrop
from jaxnets.recipe.augment.policy.table import PolicyConfig, find_policy
from jaxnets.recipe.augment.posterize import Posterize
from jaxnets.recipe.augment.quarter_turn import QuarterTurn
from jaxnets.recipe.augment.random_resized_crop import HostCut, RandomCut, RandomResizedCrop
from jaxnets.recipe.augment.three_augment import ThreeAugment


@dataclass(frozen=True, kw_only=True)
class AugmentConfig:
    """Each op's parameters; with the defaults none changes anything.

    The order of the fields is that of the ops: the crop and what moves pixels first, then colours, then what takes
    pixels away. Examples are mixed (`jaxnets.recipe.mix`) after the last op, and then normalised.
    """

    random_resized_crop: RandomResizedCrop = field(default_factory=RandomResizedCrop)
    pad_and_crop: PadAndCrop = field(default_factory=PadAndCrop)
    flip: Flip = field(default_factory=Flip)
    quarter_turn: QuarterTurn = field(default_factory=QuarterTurn)
    policy: PolicyConfig = field(default_factory=PolicyConfig)
    three_augment: ThreeAugment = field(default_factory=ThreeAugment)
    color_jitter: ColorJitter = field(default_factory=ColorJitter)
    grey: Grey = field(default_factory=Grey)
    augmix: AugMix = field(default_factory=AugMix)
    posterize: Posterize = field(default_factory=Posterize)
    cutout: Cutout = field(default_factory=Cutout)
    erasing: Erasing = field(default_factory=Erasing)


def cut_and_ops(
    spec: AugmentConfig, preprocess: Preprocess, *, canvas_is_input: bool, cut_by_host: bool = False
) -> tuple[Cut | None, tuple[Op, ...]]:
    """Returns what brings canvases to the size of `preprocess`, and the ops that follow.

    There is no cut where nothing is cropped at random and each canvas is what the model takes. Where there is one, it
    mirrors the images on its way, which then is no op of its own.

    Args:
        spec: each op's parameters.
        preprocess: what evaluation does, at the size that is trained at.
        cut_by_host: random crops are cut out of images when these are decoded; what is left to do is to mirror them.
        canvas_is_input: each canvas is an image of that size, and evaluation crops nothing of it.

    Raises:
        UserError: if a policy's parameters contradict each other.
    """
    flip = spec.flip if spec.flip != Flip() else None
    crop = spec.random_resized_crop
    cut: Cut | None = None
    if crop.area is not None:
        (least, most), (tallest, widest) = crop.area, crop.aspect
        random = RandomCut(
            height=preprocess.height,
            width=preprocess.width,
            area=(least, most),
            aspect=(tallest, widest),
            filter=crop.filter or filter_of(preprocess),
            flip=flip,
        )
        cut = HostCut(random=random) if cut_by_host else random
    elif not canvas_is_input:
        cut = CentreCut.of(preprocess, flip)
    given = [getattr(spec, entry.name) for entry in fields(spec)]
    changed = [one for one in given if one != type(one)()]
    bound = [one.bind(preprocess) if isinstance(one, Unbound) else one for one in changed]
    named = [find_policy(one, preprocess) if isinstance(one, PolicyConfig) else one for one in bound]
    return cut, tuple(op for op in named if isinstance(op, Op) and not (cut and isinstance(op, Flip)))
