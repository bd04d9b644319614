"""The policies that a config can name."""

from dataclasses import dataclass, field
from typing import Literal

from jaxnets.errors import UserError
from jaxnets.preprocess import Preprocess
from jaxnets.recipe.augment.policy.dialect import colour
from jaxnets.recipe.augment.policy.engine import DrawnOps
from jaxnets.recipe.augment.policy.layer import Policy
from jaxnets.recipe.augment.policy.tensorflow import TensorflowRandAugment
from jaxnets.recipe.augment.policy.timm import AutoAugmentV0, TimmRandAugment
from jaxnets.recipe.augment.policy.torchvision import (
    AutoAugmentCifar10,
    AutoAugmentImagenet,
    TorchvisionRandAugment,
    TrivialAugmentWide,
)

Name = Literal[
    "timm_rand_augment",
    "torchvision_rand_augment",
    "tensorflow_rand_augment",
    "trivial_augment_wide",
    "auto_augment_v0",
    "auto_augment_imagenet",
    "auto_augment_cifar10",
]


@dataclass(frozen=True, kw_only=True)
class PolicyConfig:
    """Which policy, and the parameters of each; a policy is a field here and a choice of `name`."""

    name: Name | None = None  # None: no policy
    timm_rand_augment: TimmRandAugment = field(default_factory=TimmRandAugment)
    torchvision_rand_augment: TorchvisionRandAugment = field(default_factory=TorchvisionRandAugment)
    tensorflow_rand_augment: TensorflowRandAugment = field(default_factory=TensorflowRandAugment)
    trivial_augment_wide: TrivialAugmentWide = field(default_factory=TrivialAugmentWide)
    auto_augment_v0: AutoAugmentV0 = field(default_factory=AutoAugmentV0)
    auto_augment_imagenet: AutoAugmentImagenet = field(default_factory=AutoAugmentImagenet)
    auto_augment_cifar10: AutoAugmentCifar10 = field(default_factory=AutoAugmentCifar10)


def find_policy(spec: PolicyConfig, preprocess: Preprocess) -> DrawnOps | None:
    """Returns the op that carries out the policy which a config names.

    Raises:
        UserError: if its magnitude is none of its bins.
    """
    if spec.name is None:
        return None
    policy: Policy = getattr(spec, spec.name)
    if isinstance(policy, TorchvisionRandAugment) and policy.magnitude >= policy.bins:
        raise UserError(
            f"config.augment.policy.{spec.name}.magnitude {policy.magnitude} is none of its bins, which count from 0 "
            f"to {policy.bins - 1}: give one of these, or more bins"
        )
    return DrawnOps(policy=policy, fill=colour(policy.dialect.fill, preprocess.fill))
