"""Reading files of weights from strangers: safetensors, PyTorch and NumPy, told apart by their first bytes."""

import json
import re
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import ml_dtypes
import numpy as np
from jaxtyping import Shaped
from safetensors import safe_open

from jaxnets.errors import UserError, quoted
from jaxnets.pretrained.state_dict import Weights
from jaxnets.pretrained.torch_file import STREAM_MAGIC, read_torch_file

_EXPECTED = "expected safetensors, a PyTorch state dict (.pth, .pt, .bin) or .npz"
_AGAIN = "fetch it again"
_HEAD = 512  # bytes that tell what a file is
_SAFETENSORS = frozenset(
    ["F64", "F32", "F16", "BF16", "C64", "I64", "I32", "I16", "I8", "U64", "U32", "U16", "U8", "BOOL"]
)
_NPZ_RATIO = 64  # the most that an .npz of weights may unpack to, in sizes of the file; deflate itself allows 1032 …
_NPZ_SMALL = 256 << 20  # … bytes that any .npz may unpack to: fresh weights are mostly zeros
_INDEX = ".index.json"  # ends the name of the file that says which of several files holds which array
_FILE = re.compile(r"\w[\w.-]*", re.ASCII)  # a name in an index: a file of the same folder
_LARGEST_INDEX = 64 << 20  # bytes
_STRANGERS = (  # first bytes, what they say, what to do
    (b"version https://git-lfs", "a Git LFS pointer, not the file that it points to", "run `git lfs pull`"),
    (b"\x1f\x8b", "gzipped", "unpack it with gunzip"),
    (b"\x89HDF", "an HDF5 file (Keras)", "convert it to safetensors where it was made"),
    (b"\x93NUMPY", "one NumPy array without a name", "save the arrays with np.savez"),
    (b"PK\x05\x06", "an empty zip archive", _AGAIN),
)


def read_weights(path: Path, weights: Weights = "ema") -> dict[str, Shaped[np.ndarray, "..."]]:
    """Reads a file of weights; what it is its first bytes say, not its name.

    Nothing that the file contains is executed, and no more memory is taken than its size explains.

    Args:
        path: a safetensors file, a PyTorch file (`torch.save` of a state dict or of a checkpoint with one; see
            `read_torch_file`), an .npz archive, or the index (`….index.json`) of weights that are spread over several.
        weights: which are read where a checkpoint holds averaged ones and others: "ema" or "raw".

    Returns:
        The arrays by their keys, in their own dtypes (bfloat16 as `ml_dtypes.bfloat16`).

    Raises:
        UserError: if there is no such file, it is none of these, is damaged, or holds no arrays.
    """
    if path.name.endswith(_INDEX) and path.is_file():
        return _read_shards(path, weights)
    head = _read_head(path)
    if head[:4] == b"PK\x03\x04":
        arrays = _read_npz(path) if _is_npz(path) else read_torch_file(path, weights)
    elif head[:1] == b"\x80" and STREAM_MAGIC in head[:32]:
        arrays = read_torch_file(path, weights)
    elif head[8:9] == b"{":
        arrays = _read_safetensors(path)
    else:
        raise _unknown(path, head)
    if not arrays:
        raise UserError(f"{path} holds no arrays; expected the weights of a model; check how it was saved")
    for key in arrays:
        if not key.isprintable():
            raise UserError(f"{path} has the key {quoted(key)}; expected keys of printable characters; {_AGAIN}")
    return arrays


def shards(index: Path) -> dict[str, str]:
    """Returns which file, beside `index`, holds each array of weights that are spread over several files.

    Raises:
        UserError: if it cannot be read, or names files that lie elsewhere.
    """
    with _damage_refused(index):
        if index.stat().st_size > _LARGEST_INDEX:
            raise UserError(f"{index} has more than {_LARGEST_INDEX >> 20} MiB: it is no index of weights; {_AGAIN}")
        content = json.loads(index.read_text(encoding="utf-8"))
    files = content.get("weight_map") if isinstance(content, dict) else None
    if not isinstance(files, dict) or not files:
        raise UserError(f'{index} has no "weight_map" that names the file of each array; {_AGAIN}')
    for file in files.values():
        if not isinstance(file, str) or not _FILE.fullmatch(file) or file.endswith(_INDEX):
            raise UserError(f"{index} names {quoted(str(file))}; expected files of the same folder; {_AGAIN}")
    return files


def _read_shards(index: Path, weights: Weights) -> dict[str, Shaped[np.ndarray, "..."]]:
    files = shards(index)
    arrays: dict[str, Shaped[np.ndarray, ...]] = {}
    for file in dict.fromkeys(files.values()):
        for key, array in read_weights(index.with_name(file), weights).items():
            if files.get(key) != file:
                raise UserError(
                    f"{index.with_name(file)} has {quoted(key)}, of which {index.name} knows nothing; {_AGAIN}"
                )
            arrays[key] = array
    if missing := [key for key in files if key not in arrays]:
        raise UserError(
            f"{len(missing)} arrays that {index} names are not in their files, {quoted(missing[0])} for one; {_AGAIN}"
        )
    return arrays


def read_metadata(path: Path) -> dict[str, str]:
    """Returns what the header of a safetensors file says beside its arrays; nothing for files of other formats."""
    if _read_head(path)[8:9] != b"{":
        return {}
    with _damage_refused(path), safe_open(path, framework="np", backend="pread") as file:
        return file.metadata() or {}


def _read_head(path: Path) -> bytes:
    if path.is_dir():
        raise UserError(f"{path} is a folder; expected one file of weights: name the file in it")
    try:
        with open(path, "rb") as file:
            head = file.read(_HEAD)
    except FileNotFoundError:
        raise UserError(f"there is no file {path}; {_EXPECTED}; check the path") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}; check its permissions") from error
    if not head:
        raise UserError(f"{path} is empty; {_EXPECTED}; {_AGAIN}")
    return head


def _unknown(path: Path, head: bytes) -> UserError:
    for magic, found, remedy in _STRANGERS:
        if head.startswith(magic):
            return UserError(f"{path} is {found}; {_EXPECTED}; {remedy}")
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if text.startswith((b"<!doctype", b"<html", b"<?xml", b"<head", b"<script")):
        return UserError(
            f"{path} is a web page, as servers send instead of a file that needs a login or has moved; {_EXPECTED}; "
            "look at it in a browser and fetch the file itself"
        )
    if head[257:262] == b"ustar":
        return UserError(
            f"{path} is a tar archive; {_EXPECTED}; unpack it, or if torch.save wrote it (before 0.1.10), load and "
            "save it again with a newer PyTorch"
        )
    if head[:1] == b"\x80":
        return UserError(
            f"{path} is a Python pickle that torch.save did not write; {_EXPECTED}; save it as one of them"
        )
    kind = "text" if head.isascii() and b"\0" not in head else "no format that is known"
    return UserError(f"{path} is {kind}: it begins with {quoted(head[:24].decode('latin-1'))}; {_EXPECTED}; {_AGAIN}")


@contextmanager
def _damage_refused(path: Path) -> Iterator[None]:
    """Turns whatever a parser raises on a damaged file into a UserError: zipfile and NumPy alone have ten kinds."""
    try:
        yield
    except UserError:
        raise
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}; check the disk, or {_AGAIN}") from error
    except Exception as error:
        raise UserError(f"{path} is cut off or damaged ({quoted(str(error))}); {_AGAIN}") from error


def _read_safetensors(path: Path) -> dict[str, Shaped[np.ndarray, "..."]]:
    """The library checks that the header's claims cover the file exactly; "pread" maps nothing of it into memory."""
    with _damage_refused(path), safe_open(path, framework="np", backend="pread") as file:
        weights = {}
        for key in file.offset_keys():
            dtype = file.get_slice(key).get_dtype()
            if dtype not in _SAFETENSORS:
                raise UserError(
                    f"{path} has {quoted(key)} in the type {dtype}, expected one of "
                    f"{', '.join(sorted(_SAFETENSORS))}; convert it where it was made"
                )
            weights[key] = file.get_tensor(key)
        return weights


def _is_npz(path: Path) -> bool:
    with _damage_refused(path), zipfile.ZipFile(path) as archive:
        names = archive.namelist()
    if any(name.endswith("/data.pkl") for name in names):
        return False
    if names and all(name.endswith(".npy") for name in names):
        return True
    shown = ", ".join(quoted(name) for name in names[:4]) or "nothing"
    raise UserError(f"{path} is a zip archive of {shown}; {_EXPECTED}; if the weights are in it, unpack it")


def _read_npz(path: Path) -> dict[str, Shaped[np.ndarray, "..."]]:
    with _damage_refused(path):
        size = path.stat().st_size
        with zipfile.ZipFile(path) as archive:
            claim = sum(entry.file_size for entry in archive.infolist())
        if claim > (limit := max(size * _NPZ_RATIO, _NPZ_SMALL)):
            raise UserError(
                f"{path} claims to unpack from {size} to {claim} bytes; expected at most {limit} for weights; {_AGAIN}"
            )
        with np.load(path, allow_pickle=False) as archive:
            return {name: _read_array(archive, name, path) for name in archive.files}


def _read_array(archive: np.lib.npyio.NpzFile, name: str, path: Path) -> Shaped[np.ndarray, "..."]:
    try:
        array = archive[name]
    except ValueError as error:
        if "allow_pickle" not in str(error):
            raise
        raise UserError(
            f"{path} has {quoted(name)} of Python objects, which are pickled and not read; expected numbers; save "
            "every array under a key of its own"
        ) from None
    if array.dtype == np.dtype("V2"):  # NumPy's files have no bfloat16: it comes back as two bytes of nothing
        return array.view(ml_dtypes.bfloat16)
    if array.dtype.kind not in "biufc":
        raise UserError(f"{path} has {quoted(name)} of type {array.dtype}; expected numbers; {_EXPECTED}")
    return array.astype(array.dtype.newbyteorder("="), copy=False)
