"""An index that is open: what is like an image."""

import os
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32, Int64

from jaxnets.classifier import Classifier
from jaxnets.data.given import Given
from jaxnets.engine.backbone import Backbone
from jaxnets.engine.onnx_file import require
from jaxnets.errors import UserError
from jaxnets.loading import Weights, load
from jaxnets.search import kinds
from jaxnets.search.store import Files, Fingerprint, Head, Store
from jaxnets.vectors import backbone_of

_SPARE = 64  # vectors that no longer count, for which more are asked for, at most


@dataclass(frozen=True)
class Hit:
    """An image of the index that is like another."""

    file: str
    similarity: float  # cosine of the angle between their vectors: 1 where they are the same


@dataclass(frozen=True, repr=False)
class Index:
    """Vectors of images, and the model that they are of."""

    folder: Path
    head: Head
    files: Files
    classifier: Classifier
    vectors: Any  # FAISS's

    def __len__(self) -> int:
        """How many images there are; a file that was changed and added again counts once."""
        return len(self.current)

    @cached_property
    def current(self) -> dict[str, int]:
        """The number of each image's vector, by path."""
        return self.files.current

    def find(self, images: Given | Iterable[Given], top: int = 10) -> list[list[Hit]]:
        """Returns the images that are most like each of those given, the most alike first.

        Args:
            images: as for `Classifier.predict`.
            top: how many for each.

        Raises:
            UserError: if top is not 1 or more.
        """
        if top < 1:
            raise UserError(f"top must be 1 or more, found {top}")
        return self.find_vectors(self.classifier.embed(images), top)

    def find_vectors(self, vectors: Float32[np.ndarray, "n f"], top: int = 10) -> list[list[Hit]]:
        """Returns what is most like images whose vectors the model's head sees; as `find`."""
        similarity, rows = self.nearest(kinds.unit(vectors), top)
        found = []
        for values, numbers in zip(similarity.tolist(), rows.tolist(), strict=True):
            hits = [
                Hit(self.files.paths[row], min(value, 1.0))
                for value, row in zip(values, numbers, strict=True)
                if row >= 0 and self.counts(row)
            ]
            found.append(hits[:top])
        return found

    def nearest(
        self, queries: Float32[np.ndarray, "n f"], top: int
    ) -> tuple[Float32[np.ndarray, "n k"], Int64[np.ndarray, "n k"]]:
        """Returns similarities and numbers of vectors, of those that no longer count too: there are `top` others."""
        old = len(self.files.paths) - len(self.current)
        return kinds.nearest(self.vectors, self.head.plan, queries, top + min(old, _SPARE))

    def counts(self, row: int) -> bool:
        """Whether a vector is of its file as it was last added."""
        return self.current[self.files.paths[row]] == row

    def __repr__(self) -> str:
        return f"<Index {self.folder}: {len(self):,} images, {self.head.plan.kind}, {self.head.fingerprint.words()}>"


def open_index(
    index: str | os.PathLike[str],
    model: str | os.PathLike[str] | Classifier | None = None,
    *,
    checkpoint: str | int = "best",
    weights: Weights = "ema",
) -> Index:
    """Opens an index that `python -m jaxnets.search --images` has built; it is mapped into memory, not read.

        jaxnets.search("photos.index").find("photo.jpg", top=5)

    Args:
        index: its folder.
        model: what it was built with, as `jaxnets.load` takes it; None: what index.json says.
        checkpoint: as for `jaxnets.load`, and `weights` too.

    Raises:
        UserError: if there is no index, it is damaged, or it is of another model.
    """
    require("faiss", "search")
    store = Store(Path(index).expanduser())
    head = store.head()
    if head is None:
        raise UserError(
            f"there is no index in {store.folder}: build one (python -m jaxnets.search --model MODEL --index "
            f"{store.folder} --images FOLDER)"
        )
    classifier = open_model(head.model if model is None else model, checkpoint, weights)
    check_model(store.folder, head, backbone_of(classifier))
    vectors, files = store.read(head, mapped=True)
    return Index(store.folder, head, files, classifier, vectors)


def open_model(model: str | os.PathLike[str] | Classifier, checkpoint: str | int, weights: Weights) -> Classifier:
    """Returns the model that computes vectors."""
    return model if isinstance(model, Classifier) else load(os.fspath(model), checkpoint, weights, "jax")


def check_model(folder: Path, head: Head, backbone: Backbone) -> None:
    """Refuses a model that an index is not of.

    Raises:
        UserError: that names both.
    """
    given = Fingerprint.of(backbone)
    if given.matches(head.fingerprint):
        return
    same = given.words() == head.fingerprint.words()
    detail = ", which fits images in another way" if same else ""
    raise UserError(
        f"the index {folder} is of {head.fingerprint.words()}, found {given.words()}{detail}: vectors of different "
        f"models cannot be compared. Give the model that it was built with ({head.model}), or another --index"
    )
