"""Which channels a network loses: those that it misses least for what they cost."""

from dataclasses import dataclass

import numpy as np

from jaxnets.compress.coupled import Coupling
from jaxnets.errors import UserError

TOLERANCE = 0.01  # of the multiply-adds that are asked for
_UNITS = ((32, 16), (16, 8), (0, 4))  # channels of a group, and how many of so many are cut at once
_LEAST = 8  # a group keeps at least one of so many of its channels


@dataclass(frozen=True)
class Group:
    """Channels that lie in the same layers, those that are missed least first."""

    channels: np.ndarray
    importance: np.ndarray

    @property
    def unit(self) -> int:
        """How many are cut at once, so that what stays is a multiple of it.

        Sixteen numbers of float32 fill a vector of AVX-512, and of float16 a tile of a tensor core: in ONNX Runtime a
        3×3 convolution of 40 channels lasts as long as one of 48, and one of 56 as one of 64. Narrow groups are cut by
        less, since there would be nothing to choose from otherwise.
        """
        return min(len(self.channels), next(unit for size, unit in _UNITS if len(self.channels) >= size))

    @property
    def least(self) -> int:
        """How many stay at least: no layer becomes so thin that what others keep is lost in it."""
        return max(self.unit, -(-len(self.channels) // (_LEAST * self.unit)) * self.unit)


def choose(coupling: Coupling, importance: np.ndarray, keep: float) -> np.ndarray:
    """Returns which channels stay, a bool of each, for a share of the network's multiply-adds.

    Unit by unit goes what matters least for each multiply-add that it saves, wherever it lies, until the share is
    reached within TOLERANCE where the units allow. `importance` is of each channel.

    Raises:
        UserError: if the channels that have to stay cost more than that.
    """
    groups = []
    for channels in coupling.groups():
        order = np.argsort(importance[channels], kind="stable")
        groups.append(Group(channels[order], importance[channels][order]))
    if not groups:
        raise UserError("this network has no channels that could be cut: prune single weights (--method magnitude)")
    cost = _Cost.of(coupling, groups)
    sizes = np.asarray([len(group.channels) for group in groups])
    left, whole = sizes.copy(), cost(sizes[None])[0]
    goal = keep * whole
    least = cost(np.asarray([min(group.least, len(group.channels)) for group in groups])[None])[0]
    if least > (1 + TOLERANCE) * goal:
        share = np.ceil(1000 * least / whole) / 1000
        raise UserError(
            f"--keep {keep:g} of the multiply-adds cannot be reached: where each group of channels keeps no more than "
            f"it has to, an eighth or so, {share:g} of them are left; give that or more, or train a smaller model"
        )
    now = whole
    while now > (1 + TOLERANCE) * goal:
        after = np.asarray([_after(group, n) for group, n in zip(groups, left, strict=True)])
        may = np.flatnonzero(after < left)
        if not len(may):
            break
        candidates = np.tile(left, (len(may), 1))
        candidates[np.arange(len(may)), may] = after[may]
        costs = cost(candidates)
        missed = np.asarray([
            groups[g].importance[sizes[g] - left[g] : sizes[g] - after[g]].sum() for g in may
        ])  # fmt: skip
        fits = costs >= (1 - TOLERANCE) * goal
        if not fits.any():  # each unit is too large: the nearest of all, this state included
            best = int(np.argmin(np.abs(costs - goal)))
            if abs(costs[best] - goal) < now - goal:
                left = candidates[best]
            break
        score = np.where(fits, missed / np.maximum(now - costs, 1), np.inf)
        best = int(np.argmin(score))
        left, now = candidates[best], costs[best]
    kept = np.ones(coupling.count, bool)
    for group, n in zip(groups, left, strict=True):
        kept[group.channels[: len(group.channels) - n]] = False
    return kept


def _after(group: Group, left: int) -> int:
    """Returns how many channels of a group are left once another unit of them is cut; as many, where none may be."""
    after = (left - 1) // group.unit * group.unit
    return after if after >= group.least else left


@dataclass(frozen=True)
class _Cost:
    """Multiply-adds, from how many channels each group keeps."""

    places: np.ndarray  # [products]
    features: np.ndarray  # [products, groups + 1]: channels of a product's features for each kept; last, that all keep
    channels: np.ndarray

    @classmethod
    def of(cls, coupling: Coupling, groups: list[Group]) -> "_Cost":
        owner = np.full(coupling.count, len(groups))
        share = np.ones(coupling.count)
        for number, group in enumerate(groups):
            owner[group.channels] = number
            share[group.channels] = 1 / len(group.channels)

        def counts(channels: np.ndarray | None) -> np.ndarray:
            found = np.zeros(len(groups) + 1)
            if channels is None:
                found[-1] = 1
            else:
                np.add.at(found, owner[channels], share[channels])
            return found

        products = coupling.products
        return cls(
            np.asarray([product.places for product in products], float),
            np.stack([counts(product.features) for product in products]),
            np.stack([counts(product.channels) for product in products]),
        )

    def __call__(self, left: np.ndarray) -> np.ndarray:
        """Returns the multiply-adds of each row of `left` `[n, groups]`."""
        left = np.concatenate([left, np.ones((len(left), 1))], 1)
        return ((left @ self.features.T) * (left @ self.channels.T)) @ self.places
