"""How many images each class has in each split, and what is wrong with that."""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Int64

from jaxnets.audit.album import Album
from jaxnets.audit.finding import Finding
from jaxnets.audit.statistics import named

_IMBALANCE = 10.0  # times as many images as the rarest class
_FEW = 20  # training images of a class, below which little can be learnt of it


def counts(album: Album) -> Int64[np.ndarray, "splits classes"]:
    """Returns the number of readable images; one with several labels counts for each."""
    found = np.zeros((len(album.splits), len(album.class_names)), np.int64)
    if album.targets is None:
        np.add.at(found, (album.split[album.readable], album.label[album.readable]), 1)
    else:
        for number in range(len(album.splits)):
            found[number] = album.targets[album.readable & (album.split == number)].sum(0, dtype=np.int64)
    return found


def sizes(album: Album) -> dict[str, Mapping[str, float]]:
    """Returns the least, the median and the largest of some numbers of the readable images."""
    height, width = album.height[album.readable], album.width[album.readable]
    if not len(height):
        return {}
    columns = {"height": height, "width": width, "aspect": width / height}
    return {
        name: {"min": float(values.min()), "median": float(np.median(values)), "max": float(values.max())}
        for name, values in columns.items()
    }


def of_classes(album: Album) -> list[Finding]:
    """Returns what is found of classes and groups: empty, tiny and outnumbered classes, groups on both sides."""
    found = counts(album)
    return [finding for finding in (_empty(album, found), _few(album, found), _imbalance(album, found)) if finding] + (
        _groups(album)
    )


def _training(album: Album, found: np.ndarray) -> np.ndarray:
    return found[album.splits.index("train")] if "train" in album.splits else found.sum(0)


def _empty(album: Album, found: np.ndarray) -> Finding | None:
    lines = []
    in_training = False
    for split, row in zip(album.splits, found, strict=True):
        missing = [album.class_names[i] for i in np.flatnonzero(row == 0)]
        if missing:
            lines.append(f"{split} has no readable image of {named(missing)}")
            in_training = in_training or split in ("train", "all")
    if not lines:
        return None
    return Finding(
        kind="empty_class",
        severity="problem" if in_training else "warning",
        title="classes without images in a split",
        advice="a class without training images is never learnt, and one without test images never judged: add images, "
        "or leave the class out",
        unit="",
        lines=tuple(lines),
    )


def _few(album: Album, found: np.ndarray) -> Finding | None:
    training = _training(album, found)
    few = np.flatnonzero((training > 0) & (training < _FEW))
    if not len(few):
        return None
    few = few[np.argsort(training[few], kind="stable")]
    return Finding(
        kind="tiny_class",
        severity="warning",
        title=f"classes of fewer than {_FEW} training images",
        advice="little is learnt of them, and their accuracy is known to a few per cent at best: add images, or merge "
        "them with others",
        unit="",
        lines=(named((f"{album.class_names[i]} ({training[i]:,})" for i in few), most=40),),
    )


def _imbalance(album: Album, found: np.ndarray) -> Finding | None:
    training = _training(album, found)
    if not training.any() or training.max() < _IMBALANCE * max(int(training[training > 0].min()), 1):
        return None
    most, least = int(training.argmax()), int(np.where(training > 0, training, training.max() + 1).argmin())
    return Finding(
        kind="imbalance",
        severity="warning",
        title="classes far from balanced",
        advice="the accuracy over all images hides the rare classes: look at each class's own, and balance what an "
        "epoch holds",
        unit="",
        lines=(
            f"{album.class_names[most]} has {training[most]:,} training images, {album.class_names[least]} "
            f"{training[least]:,}: {training[most] / training[least]:.0f} times as many",
        ),
    )


def _groups(album: Album) -> list[Finding]:
    """Returns a finding where images of one group lie in several splits."""
    if album.group is None:
        return []
    order = np.lexsort((album.split, album.group))
    group, split = album.group[order], album.split[order]
    crossing = np.unique(group[1:][(group[1:] == group[:-1]) & (split[1:] != split[:-1])])
    if not len(crossing):
        return []
    members = np.isin(album.group, crossing)
    parts = ", ".join(
        f"{(members & (album.split == number)).sum():,} in {name}" for number, name in enumerate(album.splits)
    )
    return [
        Finding(
            kind="split_group",
            severity="problem",
            title="one group in several splits",
            advice="a test on images of a group that was trained on says nothing of new ones: keep each group whole",
            unit="",
            lines=(f"{len(crossing):,} groups, whose images are {parts}",),
        )
    ]
