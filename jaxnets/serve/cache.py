"""Answers that are kept by what was asked: the same bytes to the same weights have the same row."""

import hashlib
import struct
import zlib
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np
from jaxtyping import Float32

import jaxnets
from jaxnets.errors import UserError
from jaxnets.serve.limits import MEBIBYTE

if TYPE_CHECKING:
    from jaxnets.classifier import Classifier

_MAGIC = b"jaxnets1"  # of this layout
_HEAD = struct.Struct("<8s32sIII")  # it, the key, height and width of the image as it came, columns of the row
_CHECK = struct.Struct("<I")  # CRC-32 of all before
_OVERHEAD = 256  # bytes that Python takes for an entry besides those of the value


class Entry(NamedTuple):
    """What is kept of an image."""

    row: Float32[np.ndarray, " columns"]  # as the batcher has it, with what records need where there are some
    size: tuple[int, int]  # height and width as it came


class Store(Protocol):
    """Where encoded entries are kept by their keys; all methods belong to the event loop."""

    async def start(self) -> None: ...

    async def get(self, keys: Sequence[bytes]) -> list[bytes | None] | None:
        """Returns what there is under each key; None where the store cannot be asked now."""
        ...

    def put(self, items: Mapping[bytes, bytes]) -> None:
        """Keeps it if it can; nobody waits for it."""
        ...

    async def close(self) -> None: ...


class MemoryStore:
    """A part of this process's memory, in which the latest used stay.

    Args:
        most: bytes.
    """

    def __init__(self, most: int) -> None:
        self.bytes = 0
        self._most = most
        self._kept: OrderedDict[bytes, bytes] = OrderedDict()  # the latest used last

    async def start(self) -> None:
        pass

    async def get(self, keys: Sequence[bytes]) -> list[bytes | None] | None:
        for key in keys:
            if key in self._kept:
                self._kept.move_to_end(key)
        return [self._kept.get(key) for key in keys]

    def put(self, items: Mapping[bytes, bytes]) -> None:
        for key, value in items.items():
            if key in self._kept:
                self.bytes -= len(self._kept.pop(key)) + _OVERHEAD
            self._kept[key] = value
            self.bytes += len(value) + _OVERHEAD
        while self.bytes > self._most:
            _, value = self._kept.popitem(last=False)
            self.bytes -= len(value) + _OVERHEAD

    async def close(self) -> None:
        pass


def open_store(text: str, parts: int = 1) -> Store | None:
    """Reads `MIB` or `redis://HOST:PORT/DB`; of several processes each has its part of the memory. None: 0 MiB.

    Raises:
        UserError: if it is neither, or the client of Redis is not installed.
    """
    if "://" in text:
        from jaxnets.serve.redis_store import RedisStore

        return RedisStore(text)
    try:
        mebibytes = float(text)
    except ValueError:
        mebibytes = -1.0
    if not 0 <= mebibytes < 1 << 30:
        raise UserError(
            f"--cache must be MiB of memory (64), or redis://HOST:PORT/DB, found {text!r}: 0 keeps no answers"
        )
    return MemoryStore(int(mebibytes * MEBIBYTE / parts)) if mebibytes else None


def identity_of(predictor: "Classifier", name: str, *, recorded: bool) -> bytes:
    """Returns what tells a served model from one whose rows may differ, other weights above all: 32 bytes."""
    import jax

    said = (
        jaxnets.__version__, name, predictor.name, predictor.step, predictor.fingerprint, repr(predictor.model),
        repr(predictor.preprocess), predictor.labels, predictor.activation, predictor.temperature,
        predictor.matmul_precision, predictor.engine.name, repr(predictor.refusal), recorded,
    )  # fmt: skip
    found = hashlib.blake2b(repr(said).encode(), digest_size=32)
    spread = None if predictor.spread is None else vars(predictor.spread)
    for leaf in jax.tree.leaves((predictor.variables, spread)):
        found.update(np.ascontiguousarray(leaf).reshape(-1).view(np.uint8).data)
    return found.digest()


def key_of(identity: bytes, content: bytes) -> bytes:
    """Returns the key of an uploaded file for a model: 32 bytes."""
    return hashlib.blake2b(content, digest_size=32, key=identity).digest()


def encode(key: bytes, entry: Entry) -> bytes | None:
    """Returns an entry's bytes; None for one that must not be kept, since its row is not finite."""
    if not np.isfinite(entry.row).all():
        return None
    content = _HEAD.pack(_MAGIC, key, *entry.size, len(entry.row)) + entry.row.astype("<f4").tobytes()
    return content + _CHECK.pack(zlib.crc32(content))


def decode(key: bytes, content: bytes, columns: int, classes: int) -> Entry | None:
    """Returns the entry whose bytes these are; None if they are not those of one that `encode` made for the key.

    Args:
        key: that they were found under, where anybody may have put them.
        content: the bytes.
        columns: of the model's rows.
        classes: columns that are probabilities, the first.
    """
    if len(content) != _HEAD.size + 4 * columns + _CHECK.size:
        return None
    magic, whose, height, width, found = _HEAD.unpack_from(content)
    (check,) = _CHECK.unpack_from(content, len(content) - _CHECK.size)
    if (magic, whose, found) != (_MAGIC, key, columns) or check != zlib.crc32(content[: -_CHECK.size]):
        return None
    row = np.frombuffer(content, "<f4", columns, _HEAD.size).astype(np.float32)
    probable = (row[:classes] >= 0) & (row[:classes] <= 1 + 1e-3)  # rounding included; false for NaN
    return Entry(row, (height, width)) if probable.all() and np.isfinite(row).all() else None
