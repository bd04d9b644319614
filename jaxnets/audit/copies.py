"""Findings about images that are one: across splits, under several labels, or merely twice."""

from collections import defaultdict
from collections.abc import Iterable, Sequence

import numpy as np
from jaxtyping import Int64

from jaxnets.audit.album import Album
from jaxnets.audit.descriptor import TURNS
from jaxnets.audit.duplicates import Pairs
from jaxnets.audit.finding import Case, Finding

_WHOLE = 0.97  # share of an image from which on it counts as not cropped


def groups_of(album: Album, exact: Iterable[Sequence[int]], pairs: Pairs) -> Int64[np.ndarray, " n"]:
    """Returns the number of each image's group: that of its first image. What stands alone is its own."""
    above = np.arange(len(album))

    def top(i: int) -> int:
        while above[i] != i:
            above[i] = above[above[i]]
            i = int(above[i])
        return i

    links = [(group[0], other) for group in exact for other in group[1:]]
    for one, other in (*links, *zip(pairs.first.tolist(), pairs.second.tolist(), strict=True)):
        a, b = sorted((top(one), top(other)))
        above[b] = a
    return np.array([top(i) for i in range(len(album))], np.int64)


def of_copies(album: Album, exact: Sequence[Sequence[int]], pairs: Pairs) -> list[Finding]:
    """Returns what is found of images that are one.

    A group that lies in several splits, or under several labels, is a finding of that; and a group of neither is one of
    copies alone, where exact and near ones are told apart.
    """
    group = groups_of(album, exact, pairs)
    members: dict[int, list[int]] = defaultdict(list)
    for i in np.flatnonzero(np.bincount(group, minlength=len(album))[group] > 1).tolist():
        members[int(group[i])].append(i)
    links: dict[int, list[int]] = defaultdict(list)
    for number, first in enumerate(pairs.first.tolist()):
        links[int(group[first])].append(number)
    cases: dict[str, list[Case]] = defaultdict(list)
    for first, examples in members.items():
        near = links[first]
        likeness = float(pairs.likeness[near].min()) if near else 1.0
        case = Case(examples=tuple(examples), measure=round(likeness, 4), text=_describe(album, examples, pairs, near))
        crosses = len(set(album.split[examples].tolist())) > 1
        contradicts = any(not album.same_label(examples[0], other) for other in examples[1:])
        if crosses:
            cases["leakage"].append(case)
        if contradicts:
            cases["contradiction"].append(case)
        if not crosses and not contradicts:
            cases["near_duplicates" if near else "exact_duplicates"].append(case)
    return [_finding(kind, sorted(found, key=lambda case: -(case.measure or 0))) for kind, found in cases.items()]


def _finding(kind: str, cases: Sequence[Case]) -> Finding:
    unit = "likeness of their edges, 1 where they are the same"
    if kind == "leakage":
        return Finding(
            kind=kind,
            severity="problem",
            title="one image in several splits",
            advice="the test's accuracy comes out too high: keep one of each, or all that is made of one image in one "
            "split",
            unit=unit,
            cases=tuple(cases),
        )
    if kind == "contradiction":
        return Finding(
            kind=kind,
            severity="problem",
            title="one image under several labels",
            advice="no model can be right on both: decide which label is right, and remove the others",
            unit=unit,
            cases=tuple(cases),
        )
    exact = kind == "exact_duplicates"
    return Finding(
        kind=kind,
        severity="warning",
        title="exact duplicates" if exact else "near duplicates: resized, cropped, turned, edited",
        advice="they count for more than one, and a split that is drawn later may part them: keep one of each",
        unit="" if exact else unit,
        cases=tuple(cases),
    )


def _describe(album: Album, examples: Sequence[int], pairs: Pairs, near: Sequence[int]) -> str:
    if not near:
        digests = set(album.file_digest[list(examples)].tolist())
        return "the same bytes" if len(digests) == 1 and 0 not in digests else "the same pixels"
    parts = [f"{pairs.likeness[near].min():.2f} alike"]
    parts += dict.fromkeys(TURNS[way] for way in pairs.way[near].tolist() if way)
    kept = float(pairs.kept[near].min())
    if kept < _WHOLE:
        parts.append(f"cropped to {kept:.0%}")
    sizes = {(int(album.width[i]), int(album.height[i])) for i in examples}
    if len(sizes) > 1:
        parts.append("of several sizes")
    return ", ".join(parts)
