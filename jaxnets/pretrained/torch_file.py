"""Reading PyTorch's files without PyTorch: the zip format, and the stream format from before 1.6.

Both are a pickle with the tensors' bytes beside it; `torch_pickle` says how that is read without running it.
"""

import io
import os
import struct
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from jaxtyping import Shaped, UInt8

from jaxnets.errors import UserError, quoted
from jaxnets.pretrained.state_dict import Weights, find_state_dict
from jaxnets.pretrained.torch_pickle import SAVE_WEIGHTS, Tensor, TorchUnpickler, as_count, as_text

STREAM_MAGIC = (0x1950A86A20F9469CFC6C).to_bytes(10, "little")  # in the first pickle of a file from before 1.6
_LONGEST_PICKLE = 64 << 20  # bytes
_SMALLEST_COPIES = 1 << 20  # bytes that non-contiguous tensors may always take, however small the file
_AGAIN = "fetch it again"


def read_torch_file(path: Path, weights: Weights = "ema") -> dict[str, Shaped[np.ndarray, "..."]]:
    """Reads the state dict of a `torch.save` file, in the zip format or in the stream format from before 1.6.

    It is the whole file or an entry of it, as `find_state_dict` says; what else the file holds, an optimizer's state
    for instance, is passed over and its bytes not read.

    Args:
        path: the file.
        weights: which are read where there are averaged ones and others: "ema" or "raw".

    Returns:
        The tensors by their keys, in the file's order and dtypes. Tensors that share a storage share memory, unless
        they are strided.

    Raises:
        UserError: if the file is no such file, is damaged, or holds no state dict of dense tensors. Nothing is
            executed.
    """
    with _damage_refused(path), open(path, "rb") as file:
        unpickler = TorchUnpickler(path)
        if file.read(4) == b"PK\x03\x04":
            tree, spans = _open_zip(file, unpickler)
        else:
            tree, spans = _open_stream(file, unpickler)
        state = find_state_dict(tree, path, weights)
        return _read_tensors(state, spans(), file, path)


@contextmanager
def _damage_refused(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}; check the disk, or {_AGAIN}") from error
    except (
        EOFError,
        IndexError,
        KeyError,
        OverflowError,
        TypeError,
        ValueError,
        struct.error,
        zipfile.BadZipFile,
    ) as error:
        raise UserError(f"{path} is cut off or damaged ({quoted(str(error))}); {_AGAIN}") from error


@dataclass(frozen=True, slots=True)
class _Span:
    """Where a storage's bytes lie in the file; they are known to lie inside it."""

    start: int
    size: int
    crc: int = 0  # 0: unknown


_Locate = Callable[[], dict[str, _Span]]  # finds the bytes of each storage


def _open_zip(file: BinaryIO, unpickler: TorchUnpickler) -> tuple[object, _Locate]:
    """Reads the format of PyTorch 1.6 and later: an archive, not compressed, with ROOT/data.pkl and ROOT/data/KEY."""
    path = unpickler.path
    with zipfile.ZipFile(file) as archive:
        entries = {entry.filename: entry for entry in archive.infolist()}
    pickles = [name for name in entries if name.endswith("/data.pkl") and name.count("/") == 1]
    if len(pickles) != 1:
        raise UserError(f"{path} has {len(pickles)} entries */data.pkl; a PyTorch file has one; {_AGAIN}")
    root = pickles[0].removesuffix("data.pkl")
    if root + "constants.pkl" in entries:
        raise UserError(f"{path} is a TorchScript program, not a state dict; {SAVE_WEIGHTS}")

    def read(name: str) -> bytes:
        return _read_span(file, _span(file, entries[root + name], path), root + name).tobytes()

    if root + "byteorder" in entries and read("byteorder").strip() != b"little":
        raise UserError(f"{path} was saved on a big-endian machine, which is not supported; save it as safetensors")
    if entries[pickles[0]].file_size > _LONGEST_PICKLE:
        raise _pickle_too_long(path)
    tree = unpickler.load(io.BytesIO(read("data.pkl")))

    def locate() -> dict[str, _Span]:
        keys = [key for key in unpickler.storages if f"{root}data/{key}" in entries]
        return {key: _span(file, entries[f"{root}data/{key}"], path) for key in keys}

    return tree, locate


def _span(file: BinaryIO, entry: zipfile.ZipInfo, path: Path) -> _Span:
    if entry.compress_type != zipfile.ZIP_STORED or entry.flag_bits & 1:
        raise UserError(
            f"{path} has a compressed or encrypted entry {quoted(entry.filename)}; PyTorch writes none: unpack it and "
            "pack it again without compression (zip -0)"
        )
    file.seek(entry.header_offset)
    header = file.read(30)  # its last two numbers are the lengths of the name and of the padding that follow it
    if header[:4] != b"PK\x03\x04":
        raise ValueError("an entry of the archive is not where its directory says")
    start = entry.header_offset + 30 + sum(struct.unpack("<HH", header[26:]))
    if start + entry.file_size > _size(file):
        raise ValueError("an entry of the archive reaches past its end")
    return _Span(start, entry.file_size, entry.CRC)


def _open_stream(file: BinaryIO, unpickler: TorchUnpickler) -> tuple[object, _Locate]:
    """Reads the format from before PyTorch 1.6: five pickles (magic number, version, machine, object, keys of the
    storages), then for every key the number of elements as little-endian int64 and the bytes."""
    path = unpickler.path
    file.seek(0)
    pickles = io.BytesIO(file.read(_LONGEST_PICKLE))
    try:
        magic, version, _ = (unpickler.load(pickles) for _ in range(3))
        unpickler.storages.clear()
        tree, keys = unpickler.load(pickles), unpickler.load(pickles)
    except ValueError:
        if _size(file) > _LONGEST_PICKLE == pickles.tell():
            raise _pickle_too_long(path) from None
        raise
    if magic != int.from_bytes(STREAM_MAGIC, "little") or version != 1001 or not isinstance(keys, list):
        raise ValueError("the magic number, version or list of storages is not PyTorch's")
    return tree, lambda: _follow(file, unpickler, keys, pickles.tell())


def _follow(file: BinaryIO, unpickler: TorchUnpickler, keys: list[object], start: int) -> dict[str, _Span]:
    """Finds the storages of a stream, which follow each other from `start` on in the order of `keys`."""
    spans: dict[str, _Span] = {}
    for key in keys:
        if (name := as_text(key)) not in unpickler.storages:
            raise ValueError(f"nothing refers to the storage {name}, or it is of a type that is not read")
        file.seek(start)
        (numel,) = struct.unpack("<q", file.read(8))
        size = as_count(numel) * unpickler.storages[name].dtype.itemsize
        spans[name] = _Span(start + 8, size)
        start += 8 + size
        if start > _size(file):
            raise ValueError(f"storage {name} has {size} bytes, more than are left")
    return spans


def _pickle_too_long(path: Path) -> UserError:
    return UserError(
        f"{path} has a pickle of more than {_LONGEST_PICKLE >> 20} MiB, too long for weights; {SAVE_WEIGHTS}"
    )


def _size(file: BinaryIO) -> int:
    return os.fstat(file.fileno()).st_size


def _read_span(file: BinaryIO, span: _Span, name: str) -> UInt8[np.ndarray, " size"]:
    data = np.empty(span.size, np.uint8)
    file.seek(span.start)
    if file.readinto(data.data) != span.size:  # type: ignore[attr-defined]
        raise ValueError(f"{name} is cut off")
    if span.crc and zlib.crc32(data.data) != span.crc:
        raise ValueError(f"{name} does not have its checksum")
    return data


def _read_tensors(
    tensors: dict[str, Tensor], spans: dict[str, _Span], file: BinaryIO, path: Path
) -> dict[str, Shaped[np.ndarray, "..."]]:
    """Reads each storage once and lets it go after its last tensor, so that copies of strided tensors don't add up."""
    copies = sum(t.numel * t.dtype.itemsize for t in tensors.values() if not t.contiguous)
    if copies > max(_size(file), _SMALLEST_COPIES):
        raise UserError(
            f"{path} has tensors that repeat their elements, to {copies} bytes, more than the file has; where it was "
            "made, save tensor.contiguous() or tensor.clone() instead"
        )
    uses = Counter(tensor.storage.key for tensor in tensors.values())
    if sum(spans[key].size for key in uses if key in spans) > _size(file):
        raise ValueError("storages overlap")
    storages: dict[str, UInt8[np.ndarray, " size"]] = {}
    arrays = {}
    for name, tensor in tensors.items():
        key, claim = tensor.storage.key, tensor.storage.nbytes
        if key not in spans or spans[key].size != claim:
            found = f"{spans[key].size} bytes" if key in spans else "nothing"
            raise ValueError(f"the storage of {name} should have {claim} bytes, found {found}")
        if key not in storages:
            storages[key] = _read_span(file, spans[key], name)
        arrays[name] = _view(tensor, storages[key])
        uses[key] -= 1
        if not uses[key]:
            del storages[key]
    return arrays


def _view(tensor: Tensor, data: UInt8[np.ndarray, " size"]) -> Shaped[np.ndarray, "..."]:
    size = tensor.dtype.itemsize
    if not tensor.numel:
        return np.empty(tensor.shape, tensor.dtype)
    elements = data[: len(data) // size * size].view(tensor.dtype)[tensor.offset :]
    if tensor.contiguous:
        return elements[: tensor.numel].reshape(tensor.shape)
    strides = [stride * size for stride in tensor.strides]
    return np.lib.stride_tricks.as_strided(elements, tensor.shape, strides).copy()
