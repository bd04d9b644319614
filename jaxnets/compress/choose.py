"""Which channels a network loses: those that it misses least for what they cost."""

from dataclasses import dataclass

import numpy as np

from jaxnets.compress.coupled import Coupling
from jaxnets.errors import UserError

TOLERANCE = 0.01  # of the multiply-adds that are asked for
_VECTOR = 16  # numbers of float32 in a vector of AVX-512, that a layer is computed by
_UNITS = ((32, 16), (16, 8), (0, 4))  # channels of a group, and how many of so many are cut at once


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

    def least(self, share: float) -> int:
        """Returns how many stay at least, for a share of them, in whole units."""
        return min(max(self.unit, round(share * len(self.channels) / self.unit) * self.unit), len(self.channels))


def choose(coupling: Coupling, importance: np.ndarray, keep: float) -> np.ndarray:
    """Returns which channels stay, a bool of each, for a share of the network's multiply-adds.

    Unit by unit goes what matters least for each multiply-add that it saves of those that are computed, wherever it
    lies, until the share is reached within TOLERANCE where the units allow. Computed are whole vectors: a layer of 16
    channels that loses some is as slow as before, and loses none as long as others can. No group of channels keeps much
    less than the square of the share that all would keep if all lost alike: no layer becomes so thin that what others
    keep is lost in it. `importance` is of each channel.

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
    whole = cost(sizes[None])[0]
    goal = keep * whole
    for share in (_alike(cost, sizes, goal) ** 2, 0.0):  # of few units none can be had near that share, perhaps
        smallest = np.asarray([group.least(share) for group in groups])
        least = cost(smallest[None])[0]
        if least <= (1 + TOLERANCE) * goal:
            break
    else:
        share = np.ceil(1000 * least / whole) / 1000
        raise UserError(
            f"--keep {keep:g} of the multiply-adds cannot be reached: where each group of channels keeps no more than "
            f"its smallest unit, {share:g} of them are left; give that or more, or train a smaller model"
        )
    missed = [np.concatenate([[0], np.cumsum(group.importance)]) for group in groups]  # of so many that are cut

    def missing(left: np.ndarray) -> np.ndarray:
        """Returns the importance of all that is cut, of each row `[n, groups]`."""
        return sum((own[n - left[:, g]] for g, (own, n) in enumerate(zip(missed, sizes, strict=True))), np.zeros(1))

    def off(left: np.ndarray) -> float:
        """Returns how far from the goal it is, as a share of it."""
        return float(abs(cost(left[None])[0] - goal) / goal)

    def settled(left: np.ndarray) -> np.ndarray:
        """Returns what is nearer to the goal where units are too large: others in their place, perhaps."""
        while off(left) > TOLERANCE:
            once = _ways(groups, left, smallest, back=True)
            ways = np.concatenate([left[None], once, *(_ways(groups, each, smallest, back=True) for each in once)])
            far = np.abs(cost(ways) - goal) / goal
            if far.min() >= off(left):
                break
            fits = far <= max(TOLERANCE, far.min())
            left = ways[fits][int(np.argmin(missing(ways[fits])))]
        return left

    left, now = sizes.copy(), whole
    nearest = left  # to the goal, of all that was looked at
    while now > (1 + TOLERANCE) * goal:
        ways = _ways(groups, left, smallest, back=False)
        nearest = min([nearest, *ways], key=off)
        costs = cost(ways)
        ways, costs = ways[costs >= (1 - TOLERANCE) * goal], costs[costs >= (1 - TOLERANCE) * goal]
        if not len(ways):
            break
        saved = cost.computed(left[None]) - cost.computed(ways)
        if not saved.any():  # what is left lies in vectors that none of them empties
            saved = now - costs
        lost = missing(ways) - missing(left[None])
        best = int(np.argmin(np.divide(lost, saved, out=np.full(len(ways), np.inf), where=saved > 0)))
        left, now = ways[best], costs[best]
    left = settled(left)
    if off(left) > TOLERANCE:
        left = min(left, settled(nearest), key=off)
    kept = np.ones(coupling.count, bool)
    for group, n in zip(groups, left, strict=True):
        kept[group.channels[: len(group.channels) - n]] = False
    return kept


def _alike(cost: "_Cost", sizes: np.ndarray, goal: float) -> float:
    """Returns the share of its channels that each group would keep for so many multiply-adds, if all lost alike."""
    low, high = 0.0, 1.0
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if cost(middle * sizes[None])[0] <= goal else (low, middle)
    return low


def _ways(groups: list[Group], left: np.ndarray, smallest: np.ndarray, *, back: bool) -> np.ndarray:
    """Returns what may be left `[n, groups]` once a unit of one group is cut, or with `back` put back."""
    found = []
    for number, (group, n, least) in enumerate(zip(groups, left, smallest, strict=True)):
        fewer = (n - 1) // group.unit * group.unit
        more = min(len(group.channels), (n // group.unit + 1) * group.unit)
        counts = [fewer] if fewer >= least else []
        counts += [more] if back and more > n else []
        for count in counts:
            found.append(left.copy())
            found[-1][number] = count
    return np.asarray(found).reshape(-1, len(groups))


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

    def computed(self, left: np.ndarray) -> np.ndarray:
        """Returns the multiply-adds of whole vectors, which the time goes by; as `__call__`."""
        return self(-(-left // _VECTOR) * _VECTOR)

    def __call__(self, left: np.ndarray) -> np.ndarray:
        """Returns the multiply-adds of each row of `left` `[n, groups]`."""
        left = np.concatenate([left, np.ones((len(left), 1))], 1)
        return ((left @ self.features.T) * (left @ self.channels.T)) @ self.places
