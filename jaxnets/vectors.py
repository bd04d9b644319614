"""The vectors that a model's head sees, of many files: for choosing what to label, and for finding what is alike."""

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32, UInt8

from jaxnets.classifier import Classifier
from jaxnets.cores import cores
from jaxnets.data.decode import decode
from jaxnets.data.sources import CorruptImage
from jaxnets.data.sources.names import printable
from jaxnets.engine.backbone import Backbone
from jaxnets.models.family import Network
from jaxnets.models.layers import with_two_outputs
from jaxnets.models.registry import family_of

_AHEAD = 3  # batches under way for each thread


class Block(NamedTuple):
    """What was computed of some consecutive files."""

    start: int  # number of the first of them
    vectors: Float32[np.ndarray, "b f"]  # of those that can be read
    errors: tuple[str | None, ...]  # of each file, why it cannot; None: it can


def backbone_of(classifier: Classifier) -> Backbone:
    """Returns a classifier without its head."""
    c = classifier
    return Backbone(c.name, c.model, c.variables, c.preprocess, c.matmul_precision)


def logits_of(classifier: Classifier, vectors: Float32[np.ndarray, "n f"]) -> Float32[np.ndarray, "n classes"]:
    """Returns what the head makes of the vectors that it sees; no temperature divides them."""
    head = classifier.variables["params"][family_of(classifier.model).structure(classifier.model).head]
    kernel, bias = head["kernel"], head["bias"]
    assert isinstance(classifier.model, Network)
    if classifier.model.single_output:
        kernel, bias = with_two_outputs(kernel, bias)
    return vectors @ np.asarray(kernel, np.float32) + np.asarray(bias, np.float32)


def vectors_of(backbone: Backbone, files: Sequence[str | Path], threads: int | None = None) -> Iterator[Block]:
    """Yields the vectors of image files, in their order and in blocks; each image is fitted as evaluation does.

    Args:
        backbone: what computes them.
        files: paths of images.
        threads: that decode, and on a CPU compute; None: one for each core.
    """
    embedder = backbone.embedder
    threads = threads or cores()
    size = embedder.batch_size

    def read(start: int) -> tuple[list[UInt8[np.ndarray, "h w c"]], list[str | None]]:
        images: list[np.ndarray] = []
        errors: list[str | None] = []
        for path in files[start : start + size]:
            try:
                image = decode(Path(path), printable(str(path)), backbone.preprocess.white_level)
            except CorruptImage as error:
                errors.append(str(error))
            else:
                images.append(backbone.preprocess.fit(image))
                errors.append(None)
        return images, errors

    def embed(start: int, images: list[np.ndarray], errors: list[str | None]) -> Block:
        shape = (0, backbone.numbers)
        vectors = embedder.embed(np.stack(images)) if images else np.zeros(shape, np.float32)
        return Block(start, np.asarray(vectors, np.float32), tuple(errors))

    def whole(start: int) -> Block:
        return embed(start, *read(start))

    starts = iter(range(0, len(files), size))
    ahead: deque[tuple[int, Future]] = deque()
    with ThreadPoolExecutor(threads, thread_name_prefix="vectors") as pool:

        def begin() -> None:
            start = next(starts, None)
            if start is not None:
                ahead.append((start, pool.submit(whole if embedder.side_by_side else read, start)))

        try:
            for _ in range(_AHEAD * threads):
                begin()
            while ahead:
                start, future = ahead.popleft()
                found = future.result()
                begin()
                yield found if embedder.side_by_side else embed(start, *found)
        finally:
            for _, future in ahead:
                future.cancel()
