"""The TFRecord format (tensorflow.org/tutorials/load_data/tfrecord): where each record of a file lies, and its bytes.

A record is its length (8 bytes, little-endian), a checksum of these, the data, and a checksum of it: CRC-32C, rotated
and offset. The length is checked where a file is indexed, the data where it is read.
"""

import mmap
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import google_crc32c

from jaxnets.data.sources import bucket

_HEADER, _FOOTER = 12, 4  # bytes around the data
_DELTA = 0xA282EAD8  # of a masked checksum
_COMPRESSED = {b"\x1f\x8b": "gzip", b"\x78\x01": "zlib", b"\x78\x9c": "zlib", b"\x78\xda": "zlib"}  # how they begin


class Damaged(ValueError):
    """A file that is no TFRecord file, or not whole; the message says why and not which."""


class Record(NamedTuple):
    offset: int  # of its data in the file, in bytes
    length: int
    checksum: int  # of its data, as it is stored
    data: memoryview


@contextmanager
def content_of(path: str) -> Iterator[memoryview]:
    """Yields all bytes of a file, mapped into memory: what nobody looks at is not read; of a bucket, all are."""
    if path.startswith(bucket.BUCKET):
        yield memoryview(bucket.read_whole(path))
        return
    with open(path, "rb") as file:
        if not os.fstat(file.fileno()).st_size:  # cannot be mapped
            yield memoryview(b"")
            return
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)  # let go of with the last view of it
    if hasattr(mmap, "MADV_RANDOM"):
        mapped.madvise(mmap.MADV_RANDOM)  # no reading ahead into images that are passed over
    yield memoryview(mapped)


def records(content: memoryview) -> Iterator[Record]:
    """Yields the records of a file, in order; their data is a view of the content, and not checked.

    Raises:
        Damaged: if it is no TFRecord file, was compressed, is cut short, or the length of a record is wrong.
    """
    position, number = 0, 0
    while position < len(content):
        header = bytes(content[position : position + _HEADER])
        length = int.from_bytes(header[:8], "little")
        if len(header) < _HEADER:
            raise Damaged(f"it is cut short in record {number}")
        if masked_crc32c(header[:8]) != int.from_bytes(header[8:], "little"):
            if number:
                raise Damaged(f"the length of record {number} does not fit its checksum")
            kind = _COMPRESSED.get(header[:2])
            raise Damaged(
                f"it is compressed ({kind}), and a record in it cannot be found without reading all before it: "
                f"decompress it"
                if kind
                else "it is not a TFRecord file"
            )
        start, end = position + _HEADER, position + _HEADER + length
        if end + _FOOTER > len(content):
            raise Damaged(
                f"it is cut short: record {number} has {length:,} bytes, and only {len(content) - start:,} are left"
            )
        yield Record(start, length, int.from_bytes(content[end : end + _FOOTER], "little"), content[start:end])
        position, number = end + _FOOTER, number + 1


def masked_crc32c(data: bytes | memoryview) -> int:
    """Returns the checksum that TFRecord stores: CRC-32C, rotated right by 15 bits, plus a constant."""
    crc = google_crc32c.value(bytes(data))
    rotated = ((crc >> 15) | (crc << 17)) & 0xFFFFFFFF
    return (rotated + _DELTA) & 0xFFFFFFFF
