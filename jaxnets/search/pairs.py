"""Images that are one, by an index: candidates are what its vectors say is near; the audit's comparison decides.

The audit compares each image with every other, which takes most of a day for a million. Here each is compared with the
few that are nearest to it, so that the time grows with the number of images alone; what a model sees as different, a
heavy crop say, is missed. What counts as one image is the same (`jaxnets.audit.duplicates`).
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float32, Int64, UInt8

from jaxnets.audit.align import agreement
from jaxnets.audit.descriptor import TURNS, describe, turn
from jaxnets.audit.duplicates import compare, least_likeness
from jaxnets.audit.look import SIDE, look
from jaxnets.audit.statistics import BLANK
from jaxnets.cores import cores
from jaxnets.data.decode import decode
from jaxnets.data.sources import CorruptImage
from jaxnets.data.sources.folder import image_files
from jaxnets.data.sources.names import printable
from jaxnets.errors import UserError
from jaxnets.search.index import Index
from jaxnets.vectors import backbone_of, vectors_of

SIMILARITY = 0.7  # of two vectors, from which images are compared
_NEAREST = 10  # that are looked at for each image
_ROWS = 1024  # images that are asked about at a time
_SAMPLE = 512  # pairs that show how alike images of this set are by chance
_BY_CHANCE = 25  # percentile of these: fewer than three in four of a set's images are duplicates


@dataclass(frozen=True)
class Pair:
    """Two images that are one."""

    first: str
    second: str
    similarity: float  # of their vectors
    likeness: float  # of their edges: 1 where they are the same
    turned: str  # how the one is turned to be like the other; empty: it is not


_Candidate = tuple[str, str, float]  # two files, and the similarity of their vectors


def duplicates(
    index: Index, similarity: float = SIMILARITY, say: Callable[[str], None] = lambda text: None
) -> list[Pair]:
    """Returns the pairs of images in an index that are one, the most alike first.

    Args:
        index: that they are in; their files must still be there.
        similarity: of two vectors, from which their images are compared, −1…1.
        say: is told what is being done.
    """
    _check(similarity)
    rows = np.array(sorted(index.current.values()), np.int64)
    found: dict[tuple[str, str], float] = {}
    for start in range(0, len(rows), _ROWS):
        chosen = rows[start : start + _ROWS]
        values, near = index.nearest(_vectors(index, chosen), _NEAREST + 1)
        for row, others, alike in zip(chosen.tolist(), near.tolist(), values.tolist(), strict=True):
            for other, value in zip(others, alike, strict=True):
                # A pair is met from both sides, or from one where an image has many that are near.
                if other >= 0 and other != row and index.counts(other):
                    found[index.files.paths[min(row, other)], index.files.paths[max(row, other)]] = value
    return _judged([(*pair, value) for pair, value in found.items()], similarity, say)


def leakage(
    index: Index,
    images: Iterable[Path],
    similarity: float = SIMILARITY,
    say: Callable[[str], None] = lambda text: None,
) -> list[Pair]:
    """Returns the pairs of an image of others, a test's for instance, and one of the index, that are one.

    Args:
        index: of the training images.
        images: files, and folders with images; one that is the very file that the index has is leakage too.
        similarity: as for `duplicates`.
        say: likewise.
    """
    _check(similarity)
    files = [str(file.absolute()) for file in image_files(images)]
    found: list[_Candidate] = []
    for block in vectors_of(backbone_of(index.classifier), files):
        readable = [file for file, error in zip(files[block.start :], block.errors, strict=False) if error is None]
        if readable:
            for file, hits in zip(readable, index.find_vectors(block.vectors, _NEAREST), strict=True):
                found += [(file, hit.file, hit.similarity) for hit in hits]
        for error in block.errors:
            if error is not None:
                say(f"left out: {error}")
    return _judged(found, similarity, say)


def _check(similarity: float) -> None:
    if not -1 <= similarity <= 1:
        raise UserError(f"the similarity must be from -1 to 1, found {similarity:g}")


def _vectors(index: Index, rows: Int64[np.ndarray, " m"]) -> Float32[np.ndarray, "m f"]:
    if index.head.plan.kind != "ivf":
        return np.stack([index.vectors.reconstruct(int(row)) for row in rows])
    # Lists have no order of their own: those of these numbers are picked out of them.
    low, high = int(rows.min()), int(rows.max()) + 1
    return index.vectors.reconstruct_n(low, high - low)[rows - low]


def _judged(candidates: Sequence[_Candidate], similarity: float, say: Callable[[str], None]) -> list[Pair]:
    """Returns those of the candidates that are one."""
    near = [pair for pair in candidates if pair[2] >= similarity]
    sample = _spread(candidates, _SAMPLE)
    say(f"{len(near):,} pairs are alike to {similarity:g} or more, and are compared")
    thumbnails = _thumbnails(sorted({file for pair in (*near, *sample) for file in pair[:2]}), say)
    sample = [pair for pair in sample if pair[0] in thumbnails and pair[1] in thumbnails]
    by_chance = 0.0
    if sample:
        first, second = _stacked(thumbnails, sample)
        by_chance = float(np.percentile(agreement(first, second).likeness, _BY_CHANCE))
    least = least_likeness(by_chance)
    near = [pair for pair in near if pair[0] in thumbnails and pair[1] in thumbnails]
    found = []
    for start in range(0, len(near), _ROWS):
        found += list(_compared(near[start : start + _ROWS], thumbnails, least))
    return sorted(found, key=lambda pair: (-pair.likeness, pair.first, pair.second))


def _compared(
    near: Sequence[_Candidate], thumbnails: dict[str, UInt8[np.ndarray, "s s"]], least: float
) -> Iterator[Pair]:
    """Yields the pairs that are one, turned in whichever way their thumbnails are most alike."""
    first, second = _stacked(thumbnails, near)
    a, b = describe(first), describe(second)
    ways = np.stack([(turn(a, way) * b).sum(1) for way in range(len(TURNS))]).argmax(0)
    for way in np.unique(ways).tolist():
        at = np.flatnonzero(ways == way)
        agreed, enough = compare(first[at], second[at], way, least)
        for i in np.flatnonzero(enough).tolist():
            one, other, value = near[int(at[i])]
            yield Pair(one, other, min(value, 1.0), float(agreed.likeness[i]), TURNS[way])


def _stacked(
    thumbnails: dict[str, UInt8[np.ndarray, "s s"]], pairs: Sequence[_Candidate]
) -> tuple[UInt8[np.ndarray, "n s s"], UInt8[np.ndarray, "n s s"]]:
    if not pairs:
        return (np.zeros((0, SIDE, SIDE), np.uint8),) * 2
    return np.stack([thumbnails[pair[0]] for pair in pairs]), np.stack([thumbnails[pair[1]] for pair in pairs])


def _thumbnails(files: Sequence[str], say: Callable[[str], None]) -> dict[str, UInt8[np.ndarray, "s s"]]:
    """Returns thumbnails of the files that can be read and show something."""

    def read(file: str) -> np.ndarray | None:
        try:
            seen = look(decode(Path(file), printable(file)))
        except CorruptImage as error:
            say(f"left out: {error}")
            return None
        return seen.thumbnail if seen.flat < BLANK else None

    with ThreadPoolExecutor(cores()) as pool:
        found = zip(files, pool.map(read, files), strict=True)
        return {file: thumbnail for file, thumbnail in found if thumbnail is not None}


def _spread(candidates: Sequence[_Candidate], most: int) -> list[_Candidate]:
    """Returns the nearest of each of some images, evenly spread."""
    firsts: dict[str, _Candidate] = {}
    for pair in candidates:
        if pair[0] not in firsts or pair[2] > firsts[pair[0]][2]:
            firsts[pair[0]] = pair
    nearest = list(firsts.values())
    return [nearest[i] for i in np.unique(np.linspace(0, len(nearest) - 1, most).astype(int))] if nearest else []
