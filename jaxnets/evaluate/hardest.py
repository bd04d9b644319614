"""The images that a run is most wrong about, or least sure of: what to look at first."""

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float32, UInt8
from PIL import Image

from jaxnets.audit.sheet import grid, thumbnail
from jaxnets.cache import use_compilation_cache
from jaxnets.classifier import Classifier
from jaxnets.data.dataset import Dataset
from jaxnets.data.examples import Examples
from jaxnets.errors import UserError
from jaxnets.evaluate.run import open_data
from jaxnets.loading import load
from jaxnets.run.directory import open_run

_BATCH = 64


@dataclass(frozen=True, repr=False)
class Hard:
    """An image of a run's data, and what the run says of it."""

    name: str  # of the image in its source: its path there, mostly
    image: UInt8[np.ndarray, "h w c"]  # as the model sees it
    labels: tuple[str, ...]  # that it has: one, or any number where an image may have several
    probabilities: Float32[np.ndarray, " classes"]
    said: str  # the most probable class

    @property
    def is_right(self) -> bool:
        """Whether the most probable class is one that the image has."""
        return self.said in self.labels

    def __repr__(self) -> str:
        return f"Hard({self.name!r}: {'+'.join(self.labels)}, said {_said(self)})"


def hardest(
    workdir: str | os.PathLike[str],
    count: int = 12,
    *,
    by: Literal["wrong", "unsure"] = "wrong",
    split: str = "validation",
    checkpoint: str | int = "best",
) -> list[Hard]:
    """Returns the images of a split that a run finds hardest, the hardest first.

    Args:
        workdir: the run directory, which may be gs://BUCKET/RUN.
        count: how many, at most.
        by: "wrong": where what is true is least probable, so that confident mistakes come first; "unsure": where the
            most probable class is least so. With several labels, the worst, or least sure, label of an image counts.
        split: of the run's data; "train" shows wrong labels.
        checkpoint: "best", "newest", or a step.

    Raises:
        UserError: if the run, the split or the data is missing, or if the data is not the run's.
    """
    if by not in ("wrong", "unsure"):
        raise UserError(f"by must be wrong or unsure, found {by!r}")
    use_compilation_cache()
    run = open_run(workdir)
    config, card = run.read_config(), run.read_model()
    data = open_data(config, card, split, None)
    assert isinstance(data, Dataset)  # the run's own
    examples = data.split(split)
    classifier = load(run.path, checkpoint)
    probabilities, readable = _answers(classifier, examples, data.threads)
    if not readable.any():
        raise UserError(f"none of the {split} images of {config.data.source} can be read")
    targets = examples.labels if examples.several_labels else np.eye(len(card.class_names))[examples.labels]
    hardness = _hardness(probabilities, targets.astype(np.float32), by, several=examples.several_labels)
    order = np.argsort(np.where(readable, -hardness, np.inf), kind="stable")[: min(count, int(readable.sum()))]
    source, chosen = data.selections[split]
    return [
        Hard(
            name=source.name(int(chosen[i])),
            image=examples.read(i).image,
            labels=tuple(card.class_names[label] for label in np.flatnonzero(targets[i])),
            probabilities=probabilities[i],
            said=card.class_names[int(probabilities[i].argmax())],
        )
        for i in order.tolist()
    ]


def sheet(found: Sequence[Hard], title: str = "") -> Image.Image:
    """Returns the images in rows, below each what it is, what was said of it, and its name."""
    cells = [
        (thumbnail(hard.image), ("+".join(hard.labels) or "none", f"said {_said(hard)}", hard.name)) for hard in found
    ]
    return grid(cells, title)


def _said(hard: Hard) -> str:
    return f"{hard.said} {hard.probabilities.max():.1%}"


def _hardness(
    probabilities: Float32[np.ndarray, "n classes"],
    targets: Float32[np.ndarray, "n classes"],
    by: Literal["wrong", "unsure"],
    *,
    several: bool,
) -> Float32[np.ndarray, " n"]:
    if several:
        worst = np.abs(probabilities - targets).max(1)
        return worst if by == "wrong" else -np.abs(probabilities - 0.5).min(1)
    return -(probabilities * targets).sum(1) if by == "wrong" else -probabilities.max(1)


def _answers(
    classifier: Classifier, examples: Examples, threads: int
) -> tuple[Float32[np.ndarray, "n classes"], Bool[np.ndarray, " n"]]:
    """Returns the probabilities of each image, and which could be read."""
    found, readable = [], []
    with ThreadPoolExecutor(max(threads, 1)) as pool:
        for numbers in _batches(len(examples)):
            read = list(pool.map(examples.read, numbers))
            found.append(classifier.engine.probabilities(np.stack([example.image for example in read])))
            readable += [example.readable for example in read]
    return np.concatenate(found), np.array(readable)


def _batches(count: int) -> Iterator[range]:
    for start in range(0, count, _BATCH):
        yield range(start, min(start + _BATCH, count))
