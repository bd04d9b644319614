"""Builds an index of images, or adds images to one."""

import os
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32

from jaxnets.cache import use_compilation_cache
from jaxnets.classifier import Classifier
from jaxnets.data.sources.folder import image_files
from jaxnets.engine.onnx_file import require
from jaxnets.errors import UserError
from jaxnets.loading import Weights
from jaxnets.search import kinds
from jaxnets.search.index import check_model, open_model
from jaxnets.search.store import Files, Fingerprint, Head, Store, facts_of
from jaxnets.vectors import backbone_of, vectors_of

_KEPT_EVERY = 20.0  # seconds of work that an interruption may lose


@dataclass(frozen=True)
class Built:
    head: Head
    added: int  # images that were not there, or were changed since
    kept: int  # images that were there as they are
    unreadable: tuple[str, ...]  # what was said of images that cannot be read
    anew: bool  # whether the index was built, and not added to


def build_index(
    model: str | os.PathLike[str] | Classifier,
    index: str | os.PathLike[str],
    images: Iterable[str | os.PathLike[str]],
    *,
    checkpoint: str | int = "best",
    weights: Weights = "ema",
    say: Callable[[str], None] = lambda text: None,
) -> Built:
    """Builds an index of images, or adds to it those that are not there or were changed since.

    What is interrupted leaves the index as it was, and what was computed by then is kept for the next time.

    Args:
        model: whose vectors are compared, as `jaxnets.load` takes it.
        index: its folder; made where it is not there.
        images: files, and folders with images.
        checkpoint: as for `jaxnets.load`, and `weights` too.
        say: is told what is being done.

    Raises:
        UserError: if the index is of another model, or there is something else; if there are no images.
    """
    require("faiss", "search")
    files = list(dict.fromkeys(os.path.abspath(file) for file in image_files(Path(i).expanduser() for i in images)))
    store = Store(Path(index).expanduser())
    with store.alone():
        head = store.head()
        use_compilation_cache()
        classifier = open_model(model, checkpoint, weights)
        backbone = backbone_of(classifier)
        whose = Fingerprint.of(backbone)
        if head is not None:
            check_model(store.folder, head, backbone)
        old: Any = None
        there = Files([], np.zeros((0, 2), np.int64))
        if head is not None:
            old, there = store.read(head, mapped=False)
        current = there.current
        facts = {file: facts_of(file) for file in files}
        new = [file for file in files if file not in current or tuple(there.facts[current[file]]) != facts[file]]
        say(f"{len(files):,} images, {len(files) - len(new):,} of which are in the index; {classifier!r}")
        fresh = _Fresh(store, whose, facts)
        if new:
            fresh.compute(backbone, new, say)
        if not fresh.paths and head is not None:
            return Built(head, 0, len(files) - len(new), tuple(fresh.errors), False)
        if not fresh.paths:
            raise UserError(f"none of the {len(files):,} images can be read: {fresh.errors[0]}")
        vectors = kinds.unit(fresh.stacked())
        stale = head.count - len(current) + sum(path in current for path in fresh.paths) if head else 0
        anew = head is None or kinds.outgrown(head.plan, head.count + len(vectors), stale, head.numbers)
        if anew:
            kept = _rows_to_keep(there, set(fresh.paths))
            if old is not None:
                vectors = np.concatenate([old.reconstruct_n(0, old.ntotal)[kept], vectors])
            there = Files([there.paths[row] for row in kept], there.facts[kept])
            say(f"building: {len(vectors):,} vectors of {vectors.shape[1]:,} numbers")
            old, plan = kinds.build(vectors)
        else:
            assert head is not None
            old.add(vectors)
            plan = head.plan
        added = np.array([facts[path] for path in fresh.paths], np.int64)
        files_now = Files([*there.paths, *fresh.paths], np.concatenate([there.facts, added]))
        head = store.write(old, plan, files_now, whose, _told(model, head), head)
    return Built(head, len(fresh.paths), len(files) - len(new), tuple(fresh.errors), anew)


def _told(model: str | os.PathLike[str] | Classifier, head: Head | None) -> str:
    """Returns what index.json calls the model: something that means it from any directory."""
    if isinstance(model, Classifier):
        return head.model if head else model.name
    text = os.fspath(model)
    return os.path.abspath(os.path.expanduser(text)) if os.path.exists(os.path.expanduser(text)) else text


def _rows_to_keep(there: Files, changed: set[str]) -> list[int]:
    """Returns the numbers of the vectors that still count."""
    return sorted(row for path, row in there.current.items() if path not in changed)


class _Fresh:
    """Vectors that are computed, or that an interrupted building has kept."""

    def __init__(self, store: Store, whose: Fingerprint, facts: dict[str, tuple[int, int]]) -> None:
        self._store, self._whose, self._facts = store, whose, facts
        self.paths: list[str] = []
        self.vectors: list[np.ndarray] = []
        self.errors: list[str] = []
        self._safe = 0  # vectors that are kept on disk

    def compute(self, backbone: Any, files: Sequence[str], say: Callable[[str], None]) -> None:
        pending = self._store.pending(self._whose)
        for file in files:
            if file in pending and pending[file][0] == self._facts[file]:
                self._add(file, pending[file][1])
        self._safe = len(self.paths)
        if self._safe:
            say(f"{self._safe:,} vectors were kept of a building that was interrupted")
        known = set(self.paths)
        left = [file for file in files if file not in known]
        last = shown = time.monotonic()
        try:
            for block in vectors_of(backbone, left):
                rows = iter(block.vectors)
                for file, error in zip(left[block.start :], block.errors, strict=False):
                    if error is None:
                        self._add(file, next(rows))
                    else:
                        self.errors.append(error)
                now = time.monotonic()
                if now > last + _KEPT_EVERY:
                    self._keep()
                    last = now
                if now > shown + _KEPT_EVERY / 2:
                    say(f"{block.start + len(block.errors):,} of {len(left):,} images seen")
                    shown = now
        except BaseException:  # Ctrl-C too
            self._keep()
            raise

    def stacked(self) -> Float32[np.ndarray, "n f"]:
        """Returns the vectors as one array, and holds them no longer."""
        vectors = np.stack(self.vectors)
        self.vectors.clear()
        return vectors

    def _add(self, file: str, vector: np.ndarray) -> None:
        self.paths.append(file)
        self.vectors.append(vector)

    def _keep(self) -> None:
        paths = self.paths[self._safe :]
        if paths:
            facts = np.array([self._facts[path] for path in paths], np.int64)
            self._store.keep(self._whose, paths, facts, np.stack(self.vectors[self._safe :]))
            self._safe = len(self.paths)
