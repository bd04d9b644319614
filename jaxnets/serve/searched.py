"""Indexes that are served beside their models: which images are like one that was sent."""

import os
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np

from jaxnets.search.given import by_model
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
    folders = by_model(given, models.served)
    return {
        name: Searched(open_index(folder, models.served[name].current.predictor)) for name, folder in folders.items()
    }
