"""Reading one IDX file from a stranger: what its header claims is held against its size before memory is taken."""

import gzip
import math
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np
from jaxtyping import UInt8

from jaxnets.errors import UserError

_UBYTE = 0x08  # third byte of the magic number: unsigned bytes follow
_DEFLATE_RATIO = 1032  # the most that deflate can shrink by, whatever it is given
_AGAIN = "fetch it again"


def read_idx(path: Path, ranks: tuple[int, ...]) -> UInt8[np.ndarray, "..."]:
    """Reads an IDX file of unsigned bytes, plain or gzipped (its first bytes say which, not its name).

    Args:
        path: the file: magic number (two zeros, the type, the number of dimensions), sizes as big-endian uint32, data.
        ranks: the numbers of dimensions that are allowed.

    Returns:
        The data in the shape that the header gives.

    Raises:
        UserError: if it is not such a file, or has fewer or more bytes than its header says.
    """
    try:
        with _opened(path) as (file, zipped):
            shape = _read_shape(file, path, ranks)
            size = math.prod(shape)
            claim = f"the {_by(shape)} = {size} bytes that its header claims"
            stored = path.stat().st_size - 4 - 4 * len(shape)
            if not zipped and size != stored:
                raise UserError(f"{path} has {stored} bytes of data instead of {claim}; {_AGAIN}")
            if zipped and size > path.stat().st_size * _DEFLATE_RATIO:
                raise UserError(
                    f"{path} cannot hold {claim}: it is gzipped to {path.stat().st_size}, and gzip shrinks no further "
                    f"than {_DEFLATE_RATIO} times; {_AGAIN}"
                )
            data = np.empty(size, np.uint8)
            if (read := _fill(file, data)) < size:
                raise UserError(f"{path} has {read} bytes of data instead of {claim}; {_AGAIN}")
            if file.read(1):
                raise UserError(f"{path} has more than {claim}; {_AGAIN}")
            return data.reshape(shape)
    except EOFError:
        raise UserError(f"{path} is cut off: its gzip stream ends early; {_AGAIN}") from None
    except (OSError, zlib.error) as error:  # gzip.BadGzipFile is an OSError
        raise UserError(f"{path} cannot be read: {error}; {_AGAIN}") from error


@contextmanager
def _opened(path: Path) -> Iterator[tuple[BinaryIO, bool]]:
    """Yields the file's content and whether it is gzipped: browsers and Kaggle unpack files and keep their names."""
    with open(path, "rb") as raw:
        zipped = raw.read(2) == b"\x1f\x8b"
        raw.seek(0)
        if zipped:
            with gzip.GzipFile(fileobj=raw) as file:
                yield cast(BinaryIO, file), True
        else:
            yield raw, False


def _read_shape(file: BinaryIO, path: Path, ranks: tuple[int, ...]) -> tuple[int, ...]:
    magic = file.read(4)
    expected = " or ".join(f"0x{_UBYTE << 8 | rank:08x}" for rank in ranks)
    if len(magic) < 4 or magic[:3] != bytes([0, 0, _UBYTE]) or magic[3] not in ranks:
        found = f"0x{magic.hex()}" if len(magic) == 4 else f"{len(magic)} bytes in all"
        kind = "labels" if ranks == (1,) else "images"
        raise UserError(
            f"{path} is not an IDX file of {kind}: expected the magic number {expected} (unsigned bytes, "
            f"{' or '.join(map(str, ranks))} dimensions), found {found}; {_AGAIN}"
        )
    header = file.read(4 * magic[3])
    if len(header) < 4 * magic[3]:
        raise UserError(
            f"{path} is cut off: expected {magic[3]} sizes after the magic number, found {len(header)} bytes; {_AGAIN}"
        )
    shape = tuple(int(size) for size in np.frombuffer(header, ">u4"))
    if 0 in shape:
        raise UserError(f"{path} is empty: its header claims {_by(shape)}; {_AGAIN}")
    return shape


def _fill(file: BinaryIO, data: UInt8[np.ndarray, " size"]) -> int:
    """Reads into `data` until it is full or the file ends; returns the number of bytes read."""
    view, done = data.data, 0
    while done < len(view):
        count = file.readinto(view[done : done + (1 << 20)])  # type: ignore[attr-defined]
        if not count:
            break
        done += count
    return done


def _by(shape: tuple[int, ...]) -> str:
    return " × ".join(map(str, shape))
