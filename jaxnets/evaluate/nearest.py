"""The training images that an image resembles most, as its run sees them: by the vectors that the head is given."""

import os
import zlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import jax
import numpy as np
from jaxtyping import Bool, Float32, Int64, UInt8
from PIL import Image

from jaxnets.audit.sheet import grid, thumbnail
from jaxnets.cache import cache_directory, use_compilation_cache
from jaxnets.classifier import Classifier
from jaxnets.data.dataset import Dataset
from jaxnets.data.examples import Examples
from jaxnets.data.given import Given, as_image
from jaxnets.errors import UserError
from jaxnets.evaluate.run import open_data
from jaxnets.loading import Weights, load
from jaxnets.run.directory import open_run
from jaxnets.run.resolve import resolve

_BATCH = 64
_REPORTED = 50  # batches between two words on how far it is


@dataclass(frozen=True, repr=False)
class Near:
    """An image of a run's data that is like another."""

    name: str  # of the image in its source: its path there, mostly
    image: UInt8[np.ndarray, "h w c"]  # as the model sees it
    labels: tuple[str, ...]  # that it has: one, or any number where an image may have several
    similarity: float  # cosine of the two vectors, 1 for the same direction

    def __repr__(self) -> str:
        return f"Near({self.name!r}: {'+'.join(self.labels)}, {self.similarity:.3f})"


def nearest(
    workdir: str | os.PathLike[str],
    images: Sequence[Given],
    count: int = 5,
    *,
    split: str = "train",
    checkpoint: str | int = "best",
    weights: Weights = "ema",
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[list[Near]]:
    """Returns for each image those of a split that are most like it, the most like first.

    The whole split goes through the model once; its vectors are kept in the user's cache, so that the next call with
    the same checkpoint and data is quick.

    Args:
        workdir: the run directory, which may be gs://BUCKET/RUN.
        images: as `Classifier.predict` takes them.
        count: how many, at most.
        split: of the run's data.
        checkpoint: "best", "newest", or a step.
        weights: "ema" or "raw", as for `jaxnets.load`.
        progress: is told now and then how many images of how many are embedded.

    Raises:
        UserError: if it is no run, or the split or the data is missing, or if the data is not the run's.
    """
    use_compilation_cache()
    source = resolve(str(workdir))
    if not source.is_run:
        raise UserError(f"{workdir} is no run, and has no training images here: give the --workdir of a training run")
    run = open_run(source.location)
    config, card = run.read_config(), run.read_model()
    data = open_data(config, card, split, None)
    assert isinstance(data, Dataset)  # the run's own
    examples = data.split(split)
    classifier = load(run.path, checkpoint, weights)
    vectors, readable = _kept(classifier, data, split, progress)
    if not readable.any():
        raise UserError(f"none of the {split} images of {config.data.source} can be read")
    asked = unit(classifier.embed([as_image(image, classifier.preprocess.white_level) for image in images]))
    chosen, similarity = most_alike(asked, vectors, readable, count)
    stored, numbers = data.selections[split]
    targets = examples.labels if examples.several_labels else np.eye(len(card.class_names))[examples.labels]
    return [
        [
            Near(
                name=stored.name(int(numbers[i])),
                image=examples.read(i).image,
                labels=tuple(card.class_names[label] for label in np.flatnonzero(targets[i])),
                similarity=float(cosine),
            )
            for i, cosine in zip(row.tolist(), cosines.tolist(), strict=True)
        ]
        for row, cosines in zip(chosen, similarity, strict=True)
    ]


def sheet(image: Given, found: Sequence[Near]) -> Image.Image:
    """Returns an image and those that are like it, below each its class, how alike it is, and its name."""
    first = (
        thumbnail(as_image(image, 65535)),
        ("the image", "", str(image) if isinstance(image, str | os.PathLike) else ""),
    )
    cells = [
        (thumbnail(near.image), ("+".join(near.labels) or "none", f"similarity {near.similarity:.3f}", near.name))
        for near in found
    ]
    return grid([first, *cells])


def unit(vectors: Float32[np.ndarray, "n f"]) -> Float32[np.ndarray, "n f"]:
    """Returns vectors brought to length 1; those of length 0 stay as they are."""
    norm = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.divide(vectors, norm, out=np.zeros_like(vectors), where=norm > 0)


def most_alike(
    asked: Float32[np.ndarray, "m f"],
    vectors: Float32[np.ndarray, "n f"],
    readable: Bool[np.ndarray, " n"],
    count: int,
) -> tuple[Int64[np.ndarray, "m k"], Float32[np.ndarray, "m k"]]:
    """Returns which vectors of length 1 are most like each that is asked for, the most like first, and their cosines.

    Of equal ones the first comes first.
    """
    cosine = np.where(readable, asked @ vectors.T, -np.inf)
    chosen = np.argsort(-cosine, axis=1, kind="stable")[:, : min(count, int(readable.sum()))]
    return chosen, np.take_along_axis(cosine, chosen, 1)


def _kept(
    classifier: Classifier, data: Dataset, split: str, progress: Callable[[int, int], None]
) -> tuple[Float32[np.ndarray, "n f"], Bool[np.ndarray, " n"]]:
    """Returns the vectors of a split, from the cache where they are there, and which of its images can be read."""
    examples = data.split(split)
    said = (repr(classifier.model), classifier.preprocess, sorted(data.fingerprint().items()), split)
    checksum = zlib.crc32(repr(said).encode())
    for leaf in jax.tree.leaves(classifier.variables):
        checksum = zlib.crc32(np.ascontiguousarray(leaf).data, checksum)
    file = cache_directory() / "embeddings" / f"{classifier.name}-{checksum:08x}.npz"
    try:
        with np.load(file, allow_pickle=False) as saved:
            vectors, readable = saved["vectors"], saved["readable"]
        if len(vectors) == len(readable) == len(examples):
            return vectors, readable
    except (OSError, ValueError, KeyError, EOFError):
        pass  # none, or a damaged one, which is made anew
    except Exception as error:  # zipfile's own
        if type(error).__name__ != "BadZipFile":
            raise
    vectors, readable = _embed_all(classifier, examples, data.threads, progress)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        partial = file.with_name(f"{file.stem}.{os.getpid()}.npz")
        np.savez(partial, vectors=vectors, readable=readable)
        partial.replace(file)
    except OSError:
        pass  # without a cache they are computed again the next time
    return vectors, readable


def _embed_all(
    classifier: Classifier, examples: Examples, threads: int, progress: Callable[[int, int], None]
) -> tuple[Float32[np.ndarray, "n f"], Bool[np.ndarray, " n"]]:
    found, readable = [], []
    with ThreadPoolExecutor(max(threads, 1)) as pool:
        for number, start in enumerate(range(0, len(examples), _BATCH)):
            read = list(pool.map(examples.read, range(start, min(start + _BATCH, len(examples)))))
            found.append(unit(classifier.embed_fitted(np.stack([example.image for example in read]))))
            readable += [example.readable for example in read]
            if number and number % _REPORTED == 0:
                progress(start, len(examples))
    return np.concatenate(found), np.array(readable)
