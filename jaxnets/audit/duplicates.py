"""Pairs of images that are one: byte for byte, pixel for pixel, or but for size, quality, a crop, a turn."""

from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float32, Int32, UInt8

from jaxnets.audit.album import Album
from jaxnets.audit.align import Agreement, agreement
from jaxnets.audit.descriptor import TURNS, alike, describe, turn, turn_images
from jaxnets.audit.statistics import BLANK, badly_exposed

_CANDIDATE = 0.4  # inner product of descriptors, from which two images are compared
_PER_IMAGE = 20  # pairs that are compared for each image, on average, at most,
_PAIRS = 100_000  # and of a large set so many pairs,
_PER_IMAGE_OF_MANY = 4  # or so many for each image
_SAMPLE = 512  # images that show how many candidates there will be, and how alike images of this set are by chance
_LIKENESS = 0.9  # correlation of edges, from which two images are one
_FOR_A_CROP, _FOR_A_SILHOUETTE, _FOR_A_TURN = 0.8, 0.6, 0.2  # shares of what is left to 1 that is asked for in addition
_MOST_DOUBT = 0.9
_SPREAD, _SPREAD_RANGE = 0.25, 0.15  # support, from which on nothing is asked for in addition, and down to where
_BY_CHANCE = 25  # percentile of the sample: fewer than three in four of a set's images are duplicates
_BATCH = 8192  # pairs compared at a time


class Pairs(NamedTuple):
    """Pairs of images that are one."""

    first: Int32[np.ndarray, " m"]
    second: Int32[np.ndarray, " m"]
    way: UInt8[np.ndarray, " m"]  # how the first is turned to be like the second: `TURNS`
    likeness: Float32[np.ndarray, " m"]  # of their edges, 1 where they are the same
    kept: Float32[np.ndarray, " m"]  # share of the one that the other keeps


def exact(album: Album) -> list[list[int]]:
    """Returns groups of images whose pixels are the same, each in the order of the album."""
    groups: dict[tuple[int, int, int], list[int]] = defaultdict(list)
    for i in np.flatnonzero(album.readable & (album.flat < BLANK)).tolist():
        groups[int(album.digest[i]), int(album.height[i]), int(album.width[i])].append(i)
    return [group for group in groups.values() if len(group) > 1]


def near(album: Album, exact_groups: Iterable[list[int]], progress: Callable[[int], None] = lambda _: None) -> Pairs:
    """Returns the pairs that are one but for size, quality, a crop or a turn; of exact duplicates the first stands.

    Images of one colour, or nearly black or white, have too little to be compared. Where all images of a set are alike,
    as digits are, only those count that are more alike than its images are by chance. `progress` is told how many were
    compared.
    """
    stands = album.readable & (album.flat < BLANK) & ~badly_exposed(album)
    for group in exact_groups:
        stands[group[1:]] = False
    chosen = np.flatnonzero(stands).astype(np.int32)
    described = describe(album.thumbnail[chosen])
    usable = np.linalg.norm(described, axis=1) > 0
    chosen, described = chosen[usable], described[usable]
    if len(chosen) < 2:
        return _all([])
    by_chance, candidate = _sample(album.thumbnail[chosen], described)
    least = least_likeness(by_chance)
    found = []
    for i, j, way, _ in alike(described, candidate, progress):
        for start in range(0, len(i), _BATCH):
            first, second = chosen[i[start : start + _BATCH]], chosen[j[start : start + _BATCH]]
            agreed, enough = compare(album.thumbnail[first], album.thumbnail[second], way, least)
            ways = np.full(len(first), way, np.uint8)
            pairs = Pairs(first, second, ways, agreed.likeness, agreed.kept)
            found.append(Pairs(*(column[enough] for column in pairs)))
    return _best_way(_all(found))


def least_likeness(by_chance: float) -> float:
    """Returns the likeness from which two images are one, in a set whose neighbours are so much alike by chance.

    Neighbours in a set of photographs agree to a half; those in a set of digits to 0.93, and then 0.99 says nothing.
    """
    return max(_LIKENESS, 1 - (1 - by_chance) ** 2)


def compare(
    first: UInt8[np.ndarray, "n s s"], second: UInt8[np.ndarray, "n s s"], way: int, least: float
) -> tuple[Agreement, Bool[np.ndarray, " n"]]:
    """Returns how well thumbnails agree, the first turned as `TURNS[way]`, and which pairs are one."""
    agreed = agreement(turn_images(first, way), second, least)
    return agreed, agreed.likeness >= _needed(agreed, way, least)


def _needed(agreed: Agreement, way: int, least: float) -> np.ndarray:
    """Returns the likeness from which two images are one.

    More where little speaks for it: where one keeps but a part of the other, where a silhouette is all that there is,
    and a little more where one would have been turned on its side.
    """
    cropped = _FOR_A_CROP * np.clip((1 - agreed.kept) / 0.5, 0, 1)
    bare = _FOR_A_SILHOUETTE * np.clip((_SPREAD - agreed.support) / _SPREAD_RANGE, 0, 1)
    doubt = np.minimum(cropped + bare + _FOR_A_TURN * bool(way & 4), _MOST_DOUBT)
    return 1 - (1 - least) * (1 - doubt)


def _sample(thumbnails: np.ndarray, described: np.ndarray) -> tuple[float, float]:
    """Returns how alike neighbours in this set are by chance, and from which product on pairs are compared."""
    rows = np.unique(np.linspace(0, len(described) - 1, _SAMPLE).astype(int))
    upright, parts = rows, []
    for way in range(len(TURNS)):  # one by one: of a large set each is 200 MB
        product = turn(described[rows], way) @ described.T
        product[np.arange(len(rows)), rows] = -1
        upright = product.argmax(1) if way == 0 else upright
        parts.append(product[product > _CANDIDATE])
    above = np.concatenate(parts)
    likeness = agreement(thumbnails[rows], thumbnails[upright]).likeness
    n = len(described)
    # Each pair is met from both sides here.
    most = int(2 * len(rows) * min(_PER_IMAGE, max(_PAIRS / n, _PER_IMAGE_OF_MANY)))
    candidate = _CANDIDATE if len(above) <= most else float(np.partition(above, len(above) - most)[len(above) - most])
    return float(np.percentile(likeness, _BY_CHANCE)), candidate


def _best_way(pairs: Pairs) -> Pairs:
    """Returns each pair once, in the way that they are most alike."""
    order = np.lexsort((pairs.way, -pairs.likeness, pairs.second, pairs.first))
    sorted_pairs = Pairs(*(column[order] for column in pairs))
    if not len(order):
        return sorted_pairs
    new = np.r_[True, (np.diff(sorted_pairs.first) != 0) | (np.diff(sorted_pairs.second) != 0)]
    return Pairs(*(column[new] for column in sorted_pairs))


def _all(found: list[Pairs]) -> Pairs:
    kinds = (np.int32, np.int32, np.uint8, np.float32, np.float32)
    empty = Pairs(*(np.zeros(0, kind) for kind in kinds))
    return Pairs(*(np.concatenate(columns) for columns in zip(empty, *found, strict=True)))
