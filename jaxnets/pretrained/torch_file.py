"""Reading PyTorch's files without PyTorch: the zip format, and the stream format from before 1.6.

Both are a pickle with the tensors' bytes beside it; `torch_pickle` says how that is read without running it.
"""

import io
import os
import struct
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from jaxtyping import Shaped, UInt8

from jaxnets.errors import UserError, quoted
from jaxnets.pretrained.torch_pickle import SAVE_WEIGHTS, Tensor, TorchUnpickler, as_count, as_text

STREAM_MAGIC = (0x1950A86A20F9469CFC6C).to_bytes(10, "little")  # in the first pickle of a file from before 1.6
_LONGEST_PICKLE = 64 << 20  # bytes
_SMALLEST_COPIES = 1 << 20  # bytes that non-contiguous tensors may always take, however small the file
_AGAIN = "fetch it again"
_WRAPPERS = ("state_dict", "model", "model_state", "model_state_dict", "state_dict_ema", "model_ema")  # first one wins


def read_torch_file(path: Path) -> dict[str, Shaped[np.ndarray, "..."]]:
    """Reads the state dict of a `torch.save` file, in the zip format or in the stream format from before 1.6.

    The state dict is the whole file, or an entry of it called `state_dict`, `model`, `model_state`,
    `model_state_dict`, `state_dict_ema` or `model_ema` (the first that there is); the other entries are then ignored
    and their bytes not read.

    Args:
        path: the file.

    Returns:
        The tensors by their keys, in the file's order and dtypes. Tensors that share a storage share memory, unless
        they are strided.

    Raises:
        UserError: if the file is no such file, is damaged, asks for anything but tensors and plain containers (the
            message names it; nothing is executed), or holds no state dict.
    """
    with _damage_refused(path), open(path, "rb") as file:
        unpickler = TorchUnpickler(path)
        if file.read(4) == b"PK\x03\x04":
            tree, spans = _open_zip(file, unpickler)
        else:
            tree, spans = _open_stream(file, unpickler)
        return _read_tensors(_state_dict(tree, path), spans, file, path)


@contextmanager
def _damage_refused(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}; check the disk, or {_AGAIN}") from error
    except NotImplementedError as error:
        raise UserError(f"{path} has {error}, which is not read; {SAVE_WEIGHTS}") from error
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


def _open_zip(file: BinaryIO, unpickler: TorchUnpickler) -> tuple[object, dict[str, _Span]]:
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
    keys = [key for key in unpickler.storages if f"{root}data/{key}" in entries]
    return tree, {key: _span(file, entries[f"{root}data/{key}"], path) for key in keys}


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


def _open_stream(file: BinaryIO, unpickler: TorchUnpickler) -> tuple[object, dict[str, _Span]]:
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
    spans: dict[str, _Span] = {}
    start = pickles.tell()
    for key in keys:
        if as_text(key) not in unpickler.storages:
            raise ValueError(f"nothing refers to the storage {key}")
        file.seek(start)
        (numel,) = struct.unpack("<q", file.read(8))
        size = as_count(numel) * unpickler.storages[key].dtype.itemsize
        spans[key] = _Span(start + 8, size)
        start += 8 + size
        if start > _size(file):
            raise ValueError(f"storage {key} has {size} bytes, more than are left")
    return tree, spans


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


def _state_dict(tree: object, path: Path) -> dict[str, Tensor]:
    if not isinstance(tree, dict):
        raise UserError(
            f"{path} holds one {'tensor' if isinstance(tree, Tensor) else type(tree).__name__} without a name; "
            f"expected a state dict: {SAVE_WEIGHTS}"
        )
    wrapped = next((name for name in _WRAPPERS if isinstance(tree.get(name), dict)), None)
    state = tree if wrapped is None else tree[wrapped]
    for key, value in state.items():
        if not isinstance(key, str) or not isinstance(value, Tensor):
            names = ", ".join(quoted(str(name)) for name in list(state)[:8])
            raise UserError(
                f"{path} has an entry {quoted(str(key))} that is no named tensor among {names}; expected a state dict, "
                f"or one under {', '.join(_WRAPPERS)}: {SAVE_WEIGHTS}"
            )
    return state


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
