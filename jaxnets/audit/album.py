"""All images of a source looked at once: numbers and small thumbnails of each, in arrays."""

from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from jaxtyping import Bool, Float16, Float32, Int32, Int64, UInt8, UInt64

from jaxnets.audit.files import FileFacts, facts_of, path_of, size_before
from jaxnets.audit.look import SIDE, Look, look
from jaxnets.data.dataset import Selection
from jaxnets.data.sources import CorruptImage, Split
from jaxnets.data.sources.base import read_reduced

_BATCH = 64  # images embedded at once
_AHEAD = 4  # batches under way, at most


class Embedding(Protocol):
    """What turns images into vectors that are near each other where the images show the same."""

    @property
    def name(self) -> str: ...

    def fit(self, image: UInt8[np.ndarray, "h w c"], original: tuple[int, int]) -> UInt8[np.ndarray, "s t c"]:
        """Brings an image, or what it was squeezed to from the `original` height and width, to what `embed` wants."""
        ...

    def embed(self, images: UInt8[np.ndarray, "b s t c"]) -> Float32[np.ndarray, "b f"]: ...


@dataclass(frozen=True, kw_only=True)
class Album:
    """What was seen of n images, split after split; of those that cannot be read the rest of the row is 0."""

    splits: tuple[str, ...]
    class_names: tuple[str, ...]
    selections: Mapping[str, Selection]
    split: Int32[np.ndarray, " n"]  # number of each image's split,
    index: Int64[np.ndarray, " n"]  # and its own in that split of the source
    label: Int32[np.ndarray, " n"]
    targets: UInt8[np.ndarray, "n classes"] | None  # where images have several labels
    group: UInt64[np.ndarray, " n"] | None  # images of one group must not be split apart
    readable: Bool[np.ndarray, " n"]
    height: Int32[np.ndarray, " n"]  # pixels, of the originals of prepared images
    width: Int32[np.ndarray, " n"]
    channels: UInt8[np.ndarray, " n"]
    digest: UInt64[np.ndarray, " n"]  # of the decoded pixels
    thumbnail: UInt8[np.ndarray, "n 32 32"]
    flat: Float32[np.ndarray, " n"]  # the numbers that `Look` explains
    colour: Float32[np.ndarray, " n"]
    brightness: Float32[np.ndarray, " n"]
    lost: Float32[np.ndarray, " n"]
    file_digest: UInt64[np.ndarray, " n"]  # of the file's bytes; 0 where there is none
    brightest: Int32[np.ndarray, " n"]  # of grey images of 16 bits; −1 for others
    orientation: UInt8[np.ndarray, " n"]  # of EXIF
    misnamed: Mapping[int, str] = field(default_factory=dict)  # format of those whose suffix promises another
    odd: Mapping[int, str] = field(default_factory=dict)  # CMYK, animated
    errors: Mapping[int, str] = field(default_factory=dict)  # of those that cannot be read
    vectors: Float16[np.ndarray, "n f"] | None = None  # embeddings, of length 1
    embedding: str = ""  # what they are by

    def __len__(self) -> int:
        return len(self.label)

    def name(self, example: int) -> str:
        return self._split(example).name(int(self.index[example]))

    def path(self, example: int) -> str | None:
        return path_of(self._split(example), int(self.index[example]))

    def image(self, example: int) -> UInt8[np.ndarray, "h w c"]:
        """Reads an image again, whole; raises CorruptImage."""
        return self._split(example).image(int(self.index[example]))

    def split_name(self, example: int) -> str:
        return self.splits[self.split[example]]

    def label_text(self, example: int) -> str:
        """Returns the name of an image's class, or of its classes."""
        if self.targets is None:
            return self.class_names[self.label[example]]
        return ", ".join(self.class_names[i] for i in np.flatnonzero(self.targets[example])) or "none"

    def described(self, example: int) -> dict[str, Any]:
        """Returns what audit.json calls an image."""
        path = self.path(example)
        about = {"split": self.split_name(example), "name": self.name(example), "label": self.label_text(example)}
        return about if path is None else {**about, "file": path.encode("utf-8", "backslashreplace").decode()}

    def same_label(self, one: int, other: int) -> bool:
        if self.targets is None:
            return bool(self.label[one] == self.label[other])
        return bool((self.targets[one] == self.targets[other]).all())

    def _split(self, example: int) -> Split:
        return self.selections[self.splits[self.split[example]]][0]


def read_album(
    selections: Mapping[str, Selection],
    class_names: tuple[str, ...],
    *,
    threads: int,
    embedding: Embedding | None = None,
    progress: Callable[[int], None] = lambda _: None,
) -> Album:
    """Looks at every image once.

    Args:
        selections: by name, a split of a source and the numbers of its examples that count.
        class_names: that the labels count.
        threads: that decode.
        embedding: of which vectors are kept; None for none.
        progress: is told how many images were looked at.

    Images are held one batch at a time; what is kept of each takes 1.1 kB, and 2 bytes for each number of a vector.
    """
    names = tuple(selections)
    split = np.repeat(np.arange(len(names), dtype=np.int32), [len(chosen) for _, chosen in selections.values()])
    index = np.concatenate([chosen for _, chosen in selections.values()]).astype(np.int64)
    n = len(index)
    rows = _Rows(n, embedding)

    def read(example: int) -> tuple[Look | None, FileFacts, np.ndarray | None, str]:
        source, number = selections[names[split[example]]][0], int(index[example])
        facts = facts_of(source, number)
        try:
            image, original, _ = read_reduced(source, number, None)
        except CorruptImage as error:
            return None, facts, None, str(error)
        fitted = None if embedding is None else embedding.fit(image, original)
        return look(image, size_before(source, number)), facts, fitted, ""

    waiting: deque[Future[list[Any]]] = deque()
    starts = iter(range(0, n, _BATCH))
    with ThreadPoolExecutor(threads) as pool:

        def ask() -> None:
            start = next(starts, None)
            if start is not None:
                examples = range(start, min(start + _BATCH, n))
                waiting.append(pool.submit(lambda: [read(example) for example in examples]))

        try:
            for _ in range(max(_AHEAD, threads + 1)):
                ask()
            done = 0
            while waiting:
                found = waiting.popleft().result()
                ask()
                rows.fill(done, found)
                done += len(found)
                progress(done)
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
    return Album(
        splits=names,
        class_names=class_names,
        selections=selections,
        split=split,
        index=index,
        label=np.concatenate([source.labels[chosen] for source, chosen in selections.values()]),
        targets=_optional(selections, "targets"),
        group=_optional(selections, "groups"),
        embedding=embedding.name if embedding else "",
        **rows.columns,
    )


class _Rows:
    """The columns of an album while they are filled."""

    def __init__(self, n: int, embedding: Embedding | None) -> None:
        self._n, self._embedding = n, embedding
        kinds: dict[str, Any] = {
            "readable": bool, "height": np.int32, "width": np.int32, "channels": np.uint8, "digest": np.uint64,
            "flat": np.float32, "colour": np.float32, "brightness": np.float32, "lost": np.float32,
            "file_digest": np.uint64, "brightest": np.int32, "orientation": np.uint8,
        }  # fmt: skip
        self.columns: dict[str, Any] = {name: np.zeros(n, kind) for name, kind in kinds.items()}
        self.columns["thumbnail"] = np.zeros((n, SIDE, SIDE), np.uint8)
        self.columns |= {"misnamed": {}, "odd": {}, "errors": {}}

    def fill(self, start: int, found: list[tuple[Look | None, FileFacts, np.ndarray | None, str]]) -> None:
        columns = self.columns
        for i, (seen, facts, _, error) in enumerate(found, start):
            columns["file_digest"][i], columns["orientation"][i] = facts.digest, facts.orientation
            columns["brightest"][i] = facts.brightest
            for name, text in (("misnamed", facts.misnamed), ("odd", facts.odd), ("errors", error)):
                if text:
                    columns[name][i] = text
            if seen is not None:
                columns["readable"][i] = True
                for name, value in seen._asdict().items():
                    columns[name][i] = value
        if self._embedding is not None:
            fitted = [(i, image) for i, (_, _, image, _) in enumerate(found, start) if image is not None]
            if fitted:
                vectors = np.asarray(self._embedding.embed(np.stack([image for _, image in fitted])), np.float32)
                vectors = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
                if "vectors" not in columns:
                    columns["vectors"] = np.zeros((self._n, vectors.shape[1]), np.float16)
                columns["vectors"][[i for i, _ in fitted]] = vectors


def _optional(selections: Mapping[str, Selection], name: str) -> Any:
    """Returns a property that not every source has, of all images; None unless all splits have it."""
    parts = [(getattr(source, name, None), chosen) for source, chosen in selections.values()]
    if any(values is None for values, _ in parts):
        return None
    return np.concatenate([np.asarray(values)[chosen] for values, chosen in parts])
