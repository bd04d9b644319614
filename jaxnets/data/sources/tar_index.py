"""What lies where in a tar archive: its headers are read once, and what they say is kept in the user's cache."""

import os
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Int64

from jaxnets.data.decode import SUFFIXES
from jaxnets.data.sources import bucket, kept
from jaxnets.data.sources.names import printable
from jaxnets.errors import UserError

LABELS = (".cls", ".json", ".txt")  # suffixes of files that say an image's label; of several, the first that is there
_LARGEST = 2**16  # bytes of such a file
_VERSION = 1  # of what is kept in the cache
_ARRAYS = ("names", "offset", "size", "text", "text_size", "counts")
_COMPRESSED = {
    b"\x1f\x8b": "gunzip",
    b"BZh": "bunzip2",
    b"\xfd7zXZ\0": "unxz",
    b"\x28\xb5\x2f\xfd": "unzstd",
}
_END = 512  # bytes of a header; an archive ends with two that are zero
_LOOKED_AT = 2**16  # bytes behind the end, in which a second archive would begin


@dataclass(frozen=True)
class Members:
    """The images and labels in an archive, in their order."""

    names: list[str]
    offset: Int64[np.ndarray, " n"]
    size: Int64[np.ndarray, " n"]
    texts: list[bytes | None]  # what the files hold that may say a label; None of images
    others: int  # files of other kinds
    links: int


def read_members(path: str) -> Members:
    """Returns the members of an archive (POSIX ustar and pax, GNU), from the cache where it has not changed.

    Raises:
        UserError: if it is compressed, cut short, or no tar archive.
    """
    try:
        version = (path, *bucket.version_of(path)) if path.startswith(bucket.BUCKET) else kept.version_of_file(path)
        at = kept.kept_at("tar", _VERSION, SUFFIXES, *version)
        arrays = kept.load(at, _ARRAYS)
        if arrays is None:
            arrays = _read(path)
            kept.save(at, arrays)
    except OSError as error:
        raise UserError(f"{printable(path)} cannot be read: {error.strerror or error}") from error
    text, start = arrays["text"].tobytes(), 0
    texts: list[bytes | None] = []
    for size in arrays["text_size"].tolist():
        texts.append(None if size < 0 else text[start : start + size])
        start += max(size, 0)
    others, links = arrays["counts"].tolist()
    names = kept.unpack(arrays["names"], len(texts))
    return Members(names, arrays["offset"], arrays["size"], texts, others, links)


def _read(path: str) -> dict[str, np.ndarray]:
    names: list[str] = []
    places: list[tuple[int, int]] = []
    texts: list[bytes] = []
    text_sizes: list[int] = []
    others = links = 0
    with _opened(path) as file:
        _refuse_compressed(file.read(8), path)
        file.seek(0)
        try:
            with tarfile.open(fileobj=file, mode="r:") as archive:
                for member in _each(archive):
                    base = os.path.basename(member.name)
                    if member.isdir() or base.startswith("."):
                        continue
                    if not member.isfile() or member.issparse():
                        links += 1
                        continue
                    suffix = os.path.splitext(base)[1].lower()
                    is_text = suffix in LABELS and member.size <= _LARGEST
                    if not is_text and suffix not in SUFFIXES:
                        others += 1
                        continue
                    names.append(member.name.removeprefix("./").replace("\0", ""))  # as pax allows
                    places.append((member.offset_data, member.size))
                    text_sizes.append(member.size if is_text else -1)
                    if is_text:
                        extracted = archive.extractfile(member)
                        texts.append(b"" if extracted is None else extracted.read())
                end = archive.offset
        except tarfile.TarError as error:
            raise UserError(
                f"{printable(path)} is no tar archive, or damaged behind {len(names):,} members ({error}): copy "
                f"it again"
            ) from error
        _refuse_unended(file, end, path)
    place = np.array(places, np.int64).reshape(-1, 2)
    return {
        "names": kept.pack(names),
        "offset": place[:, 0],
        "size": place[:, 1],
        "text": np.frombuffer(b"".join(texts), np.uint8),
        "text_size": np.array(text_sizes, np.int64),
        "counts": np.array([others, links], np.int64),
    }


def _opened(path: str) -> Any:
    return bucket.opened(path) if path.startswith(bucket.BUCKET) else open(path, "rb")


def _each(archive: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    while (member := archive.next()) is not None:
        vars(archive)["members"] = []  # which keeps a kilobyte of each
        yield member


def _refuse_compressed(start: bytes, path: str) -> None:
    for magic, command in _COMPRESSED.items():
        if start.startswith(magic):
            raise UserError(
                f"{printable(path)} is compressed, so that no image in it can be read without all before it: run "
                f"`{command} {printable(path)}` (images are compressed already, and it grows little), and give the .tar"
            )


def _refuse_unended(file: Any, end: int, path: str) -> None:
    """Refuses an archive that stops before its end mark, and one behind which another begins.

    tarfile takes a header that is damaged, or none, for the end.
    """
    file.seek(end)
    rest = file.read(_LOOKED_AT)
    if len(rest) < _END:
        raise UserError(
            f"{printable(path)} is cut short: it stops without the end mark of a tar archive; copy it again"
        )
    if rest[:_END].strip(b"\0"):
        raise UserError(f"{printable(path)} is damaged: at byte {end:,} a header should begin; copy it again")
    if rest.strip(b"\0"):
        raise UserError(
            f"{printable(path)} goes on behind its end mark, as archives do that were put together with `cat`: put "
            f"them together with `tar --concatenate`, or give them one by one"
        )


def key_of(name: str) -> tuple[str, str]:
    """Returns what the files of one sample share, and the rest: up to the first dot of the name, as in WebDataset."""
    folder, slash, base = name.rpartition("/")
    stem, _, suffix = base.partition(".")
    return folder + slash + stem, suffix.lower()
