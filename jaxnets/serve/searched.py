"""Indexes that are served beside their models: which images are like one that was sent."""

import os
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from jaxnets.errors import UserError, nearest
from jaxnets.search.index import Index, open_index
from jaxnets.serve.images import Upload, open_image
from jaxnets.serve.limits import Limits
from jaxnets.serve.models import Models


class Searched:
    """An index, and the weights that it is of: a checkpoint that takes over later has vectors that it cannot search."""

    def __init__(self, index: Index) -> None:
        self.index = index
        self.step = index.classifier.step
        p = index.classifier.preprocess
        index.classifier.embed_fitted(np.zeros((1, p.height, p.width, p.channels), np.uint8))  # is compiled now

    @cached_property
    def _root(self) -> str:
        """The folder of all images: what is above it nobody is told."""
        return os.path.commonpath([os.path.dirname(path) for path in self.index.files.paths])

    def find(self, uploads: Sequence[Upload], limits: Limits, top: int) -> list[list[dict[str, Any]]]:
        """Returns what is like each image that was sent, the most alike first."""
        classifier = self.index.classifier
        p = classifier.preprocess
        fitted = np.stack([p.fit(open_image(upload, limits, p.white_level)) for upload in uploads])
        found = self.index.find_vectors(classifier.embed_fitted(fitted), top)
        return [
            [{"file": self._name(hit.file), "similarity": round(hit.similarity, 6)} for hit in hits] for hits in found
        ]

    def _name(self, path: str) -> str:
        return os.fsencode(os.path.relpath(path, self._root)).decode("utf-8", "backslashreplace")


def open_searched(given: Sequence[str], models: Models) -> Mapping[str, Searched]:
    """Opens `DIR` or `NAME=DIR` for the models that are served; returns them by the models' names.

    Raises:
        UserError: if a model is not served or has two, or an index is missing, damaged, or of another model.
    """
    found: dict[str, Searched] = {}
    for text in given:
        name, equals, folder = text.partition("=")
        if not equals or Path(text).exists():
            if len(models.served) > 1:
                raise UserError(f"--index {text}: several models are served, say of which it is: NAME={text}")
            name, folder = next(iter(models.served)), text
        if name not in models.served:
            served = ", ".join(models.served)
            raise UserError(
                f"--index {text} names {name!r}, which is not served{nearest(name, models.served)}: expected {served}"
            )
        if name in found:
            raise UserError(f"--index {text}: {name} has an index already, {found[name].index.folder}: give one")
        found[name] = Searched(open_index(folder, models.served[name].current.predictor))
    return found
