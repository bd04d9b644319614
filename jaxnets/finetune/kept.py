"""Features on disk: kept by the weights and the data that they are of, in shards, so that a kill loses little.

    features/KEY/meta.json      what they are of
    features/KEY/*.features     shards: a line of JSON, then rows, views and vectors

Whoever may write to the user's cache may write here; what is read is checked against its own checksum and never run.
"""

import json
import logging
import os
import shutil
import time
import zlib
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32, Int32, Int64

from jaxnets.engine.onnx_file import write_bytes
from jaxnets.errors import UserError

_log = logging.getLogger(__name__)

_FORMAT = 1
_LARGEST = 8 << 30  # bytes of all features that are kept, after which the longest unused ones go


@dataclass(frozen=True)
class Rows:
    """Vectors of some images of a split, in some of their views."""

    index: Int64[np.ndarray, " n"]  # of the image, in the split
    view: Int32[np.ndarray, " n"]
    vectors: Float32[np.ndarray, "n f"]


class Kept:
    """The features of one split by one model's weights, under a folder of their own."""

    def __init__(self, root: Path, about: Mapping[str, Any]) -> None:
        """`about` says whose they are, as JSON: "weights", "data" and "preprocess" tell them from all others."""
        self._about = {"format": _FORMAT, **about}
        decides = {key: self._about[key] for key in ("format", "weights", "data", "preprocess")}
        self._key = f"{zlib.crc32(json.dumps(decides, sort_keys=True).encode()):08x}"
        self._root = root
        self.folder = root / f"{about['model']}-{self._key}"
        self._writes = True

    def why_none(self) -> str | None:
        """Returns why features that are kept of this source cannot be used; None where there are some, or none."""
        if (self.folder / "meta.json").is_file():
            return None
        for meta in sorted(self._root.glob("*/meta.json")):
            other = _read_meta(meta)
            if other.get("source") != self._about["source"] or other.get("split") != self._about["split"]:
                continue
            for key, what in (("data", "other data"), ("weights", "other weights"), ("preprocess", "another size")):
                if other.get(key) != self._about[key]:
                    return what
        return None

    def read(self, numbers: int) -> list[Rows]:
        """Returns all that is kept; `numbers` is the length of a vector. What is damaged is said, and removed."""
        meta = self.folder / "meta.json"
        if not meta.is_file():
            return []
        if _read_meta(meta) != json.loads(json.dumps(self._about)) and not self._same(_read_meta(meta)):
            _log.warning("the features in %s are of other weights or data: they are computed again", self.folder)
            shutil.rmtree(self.folder, ignore_errors=True)
            return []
        found = []
        for path in sorted(self.folder.glob("*.features")):
            rows = _read_shard(path, numbers)
            if rows is None:
                _log.warning("the features in %s are damaged or cut short: they are computed again", path)
                path.unlink(missing_ok=True)
            else:
                found.append(rows)
        with suppress(OSError):  # tidying may fail: another process may be quicker, or the disk read-only
            os.utime(meta)  # when they were last of use
        return found

    def _same(self, other: Mapping[str, Any]) -> bool:
        mine = json.loads(json.dumps(self._about))
        return all(other.get(key) == mine[key] for key in ("format", "weights", "data", "preprocess"))

    def add(self, rows: Rows) -> None:
        """Keeps more. Where they cannot be written that is said once, and none are kept from then on."""
        if not self._writes or not len(rows.index):
            return
        try:
            if not (self.folder / "meta.json").is_file():
                self._make_room()
                write_bytes(self.folder / "meta.json", json.dumps(self._about, indent=2).encode())
            name = f"{time.time_ns():x}-{os.getpid()}.features"
            write_bytes(self.folder / name, _shard(rows))
        except UserError as error:
            self._writes = False
            _log.warning("features are no longer kept, and a second run computes them again: %s", error)

    def _make_room(self) -> None:
        """Removes the features that were not used for longest, where all together are too many."""
        with suppress(OSError):
            folders = sorted(self._root.glob("*/meta.json"), key=lambda meta: meta.stat().st_mtime, reverse=True)
            total = 0
            for meta in folders:
                total += sum(path.stat().st_size for path in meta.parent.iterdir())
                if total > _LARGEST:
                    shutil.rmtree(meta.parent, ignore_errors=True)


def _shard(rows: Rows) -> bytes:
    content = b"".join(
        np.ascontiguousarray(array, kind).tobytes()
        for array, kind in ((rows.index, "<i8"), (rows.view, "<i4"), (rows.vectors, "<f4"))
    )
    head = {"rows": len(rows.index), "numbers": rows.vectors.shape[1], "crc32": zlib.crc32(content)}
    return json.dumps(head).encode() + b"\n" + content


def _read_shard(path: Path, numbers: int) -> Rows | None:
    """Returns what a shard holds; None where it is not what was written."""
    try:
        head, _, content = path.read_bytes().partition(b"\n")
        said = json.loads(head)
        n = int(said["rows"])
        whole = said["numbers"] == numbers and len(content) == n * (8 + 4 + 4 * numbers)
        if not whole or zlib.crc32(content) != said["crc32"]:
            return None
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return Rows(
        index=np.frombuffer(content, "<i8", n),
        view=np.frombuffer(content, "<i4", n, 8 * n),
        vectors=np.frombuffer(content, "<f4", n * numbers, 12 * n).reshape(n, numbers),
    )


def _read_meta(path: Path) -> dict[str, Any]:
    try:
        meta = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return meta if isinstance(meta, dict) else {}
