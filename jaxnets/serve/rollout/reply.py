"""What one model has answered to a request, and what another one is to be asked after it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float32

from jaxnets.answer import said
from jaxnets.serve.images import Upload
from jaxnets.serve.loaded import Loaded

if TYPE_CHECKING:
    from jaxnets.serve.served import ServedModel


@dataclass(frozen=True, kw_only=True, eq=False)
class Reply:
    """The answer to a request for predictions."""

    content: dict[str, Any]  # as JSON
    loaded: Loaded  # who gave it
    rows: Float32[np.ndarray, "n columns_and_more"]
    sizes: Sequence[tuple[int, int]]  # height and width of each image
    seconds: float  # from its acceptance to its rows
    time: float  # seconds since 1970, when the request had come

    def names(self, number: int) -> frozenset[str]:
        """Returns the labels that an image is said to have; none where it is refused."""
        return names_of(self.loaded, self.rows[number])

    @property
    def ids(self) -> list[int | None]:
        """The number of each answer's record, where there is one."""
        return [int(one["id"], 16) if "id" in one else None for one in self.content["predictions"]]


@dataclass(frozen=True, kw_only=True, eq=False)
class Copy:
    """A request that was answered, for a model that is asked after it."""

    name: str  # that was asked
    epoch: int  # of the name's state
    other: "ServedModel"
    uploads: Sequence[Upload]
    reply: Reply

    @property
    def nbytes(self) -> int:
        return sum(len(upload.content) for upload in self.uploads)


def names_of(loaded: Loaded, row: Float32[np.ndarray, " columns"]) -> frozenset[str]:
    """Returns the labels that a row says."""
    model = loaded.predictor
    columns = None if loaded.observer is None else loaded.observer.columns
    return frozenset(model.labels[i] for i in said(model, row[:columns]))
