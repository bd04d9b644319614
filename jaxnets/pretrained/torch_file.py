"""Reading PyTorch's files without PyTorch and without running anything that they ask to run.

A PyTorch file is a pickle, that is a program, with the tensors' bytes beside it. Here the program is read by a small
interpreter of its own instead of by `pickle`: it knows the instructions that build plain data and tensors, it holds
no reference to any Python function but the stand-ins in `_GLOBALS`, and sizes are checked before memory is taken.
"""

import io
import math
import os
import pickletools
import struct
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import ml_dtypes
import numpy as np
from jaxtyping import Shaped, UInt8

from jaxnets.errors import UserError

STREAM_MAGIC = (0x1950A86A20F9469CFC6C).to_bytes(10, "little")  # in the first pickle of a file from before 1.6
_LONGEST_PICKLE = 64 << 20  # bytes
_MOST_INSTRUCTIONS = 2_000_000  # about 50 000 tensors; a ResNet-152 takes 30 000
_MOST_DIMENSIONS = 32
_SMALLEST_COPIES = 1 << 20  # bytes that non-contiguous tensors may always take, however small the file
_AGAIN = "fetch it again"
_SAVE_WEIGHTS = (
    "where PyTorch is at hand and the source is trusted, load it there and save the weights alone: "
    "torch.save(model.state_dict(), PATH)"
)
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
        unpickler = _Unpickler(path)
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
        raise UserError(f"{path} has {error}, which is not read; {_SAVE_WEIGHTS}") from error
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


def quoted(text: str) -> str:
    """Returns a stranger's text in quotes, on one line, without control characters and not too long."""
    return ascii(text if len(text) <= 120 else text[:117] + "...")


# ---------------------------------------------------------------------------------------------- what the pickle builds


@dataclass(frozen=True, slots=True)
class _StorageType:
    dtype: np.dtype


@dataclass(frozen=True, slots=True)
class _Storage:
    """The bytes that tensors look at: known by a key, read later and only if a tensor of the state dict needs them."""

    key: str
    dtype: np.dtype
    numel: int

    @property
    def nbytes(self) -> int:
        return self.numel * self.dtype.itemsize


@dataclass(frozen=True, slots=True)
class _Tensor:
    storage: _Storage
    dtype: np.dtype
    offset: int  # this and the strides count elements
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    @property
    def numel(self) -> int:
        return math.prod(self.shape)

    @property
    def contiguous(self) -> bool:
        dense = 1
        for size, stride in zip(reversed(self.shape), reversed(self.strides), strict=True):
            if size != 1 and stride != dense:
                return False
            dense *= size
        return True


@dataclass(frozen=True, slots=True)
class _Call:
    """What stands for a callable of PyTorch: the only thing that the pickle's REDUCE and NEWOBJ can call."""

    function: Callable[..., object]


def _tensor(storage: object, offset: object, shape: object, strides: object) -> _Tensor:
    return _typed_tensor(storage, offset, shape, strides, None)


def _tensor_v2(
    storage: object, offset: object, shape: object, strides: object, grad: object, hooks: object, flags: object = None
) -> _Tensor:
    _refuse_flags(flags)
    return _typed_tensor(storage, offset, shape, strides, None)


def _tensor_v3(
    storage: object,
    offset: object,
    shape: object,
    strides: object,
    grad: object,
    hooks: object,
    dtype: object,
    flags: object = None,
) -> _Tensor:
    _refuse_flags(flags)
    if not isinstance(dtype, np.dtype):
        raise ValueError("a tensor's dtype is none")
    return _typed_tensor(storage, offset, shape, strides, dtype)


def _refuse_flags(flags: object) -> None:
    if flags:
        raise NotImplementedError("a tensor that is a conjugated or negated view")


def _typed_tensor(storage: object, offset: object, shape: object, strides: object, dtype: np.dtype | None) -> _Tensor:
    """Returns the tensor; it lies inside its storage, whatever the file says."""
    if not isinstance(storage, _Storage):
        raise ValueError("a tensor has no storage")
    dtype = storage.dtype if dtype is None else dtype
    tensor = _Tensor(storage, dtype, _count(offset), _counts(shape), _counts(strides))
    if len(tensor.shape) != len(tensor.strides):
        raise ValueError(f"a tensor has {len(tensor.shape)} sizes and {len(tensor.strides)} strides")
    if 0 not in tensor.shape:
        end = tensor.offset + sum((n - 1) * step for n, step in zip(tensor.shape, tensor.strides, strict=True)) + 1
        room = storage.nbytes // dtype.itemsize
        if end > room:
            raise ValueError(f"a tensor reaches to element {end} of a storage of {room}")
    return tensor


def _counts(values: object) -> tuple[int, ...]:
    if not isinstance(values, tuple | list) or len(values) > _MOST_DIMENSIONS:
        raise ValueError(f"a tensor's sizes and strides must be up to {_MOST_DIMENSIONS} numbers")
    return tuple(_count(value) for value in values)


def _count(value: object) -> int:
    if type(value) is not int or not 0 <= value < 1 << 48:
        raise ValueError("a size, offset or stride is no whole number from 0 to 2**48")
    return value


def _parameter(data: object, *_ignored: object) -> _Tensor:
    if not isinstance(data, _Tensor):
        raise ValueError("a parameter has no tensor")
    return data


def _dictionary() -> dict[object, object]:
    return {}


def _put(target: object, key: object, value: object) -> None:
    """Sets an item; only keys that hash in constant time, since tuples in tuples hash in exponential time."""
    if type(target) is not dict:
        raise ValueError("an item is set on something else than a dict")
    if type(key) not in (str, int, bool, type(None)) or (type(key) is int and abs(key) >= 1 << 31):
        raise NotImplementedError("a dict with a key that is neither text nor a small whole number")
    target[key] = value


_BFLOAT16 = np.dtype(ml_dtypes.bfloat16)
_STORAGES = {
    "BFloat16Storage": _BFLOAT16,
    "BoolStorage": np.dtype(np.bool_),
    "ByteStorage": np.dtype(np.uint8),
    "CharStorage": np.dtype(np.int8),
    "ComplexDoubleStorage": np.dtype(np.complex128),
    "ComplexFloatStorage": np.dtype(np.complex64),
    "DoubleStorage": np.dtype(np.float64),
    "FloatStorage": np.dtype(np.float32),
    "HalfStorage": np.dtype(np.float16),
    "IntStorage": np.dtype(np.int32),
    "LongStorage": np.dtype(np.int64),
    "ShortStorage": np.dtype(np.int16),
    "UntypedStorage": np.dtype(np.uint8),
}
_GLOBALS: Mapping[str, object] = {  # "module name", as a pickle has it; all that a file can refer to
    **{f"torch {name}": _StorageType(dtype) for name, dtype in _STORAGES.items()},
    **{f"torch {dtype}": np.dtype(dtype) for dtype in ("uint16", "uint32", "uint64")},  # those without a storage type
    "collections OrderedDict": _Call(_dictionary),
    "torch Size": _Call(_counts),
    "torch._utils _rebuild_parameter": _Call(_parameter),
    "torch._utils _rebuild_parameter_with_state": _Call(_parameter),
    "torch._utils _rebuild_tensor": _Call(_tensor),
    "torch._utils _rebuild_tensor_v2": _Call(_tensor_v2),
    "torch._utils _rebuild_tensor_v3": _Call(_tensor_v3),
    "torch.nn.parameter Parameter": _Call(_parameter),
    "torch.storage UntypedStorage": _StorageType(np.dtype(np.uint8)),
}


# ----------------------------------------------------------------------------------------------------- the interpreter

_NUMBERS = ("BINFLOAT", "BININT", "BININT1", "BININT2", "LONG1")
_TEXTS = ("BINUNICODE", "SHORT_BINUNICODE", "BINSTRING", "SHORT_BINSTRING", "BINBYTES", "SHORT_BINBYTES")
_VALUES = frozenset(_NUMBERS + _TEXTS)  # instructions that push their argument
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


class _Unpickler:
    """Reads pickles made of plain data and tensors; anything else is refused by its name."""

    def __init__(self, path: Path):
        self.path = path
        self.storages: dict[str, _Storage] = {}  # as the pickle first refers to them
        self._stack: list[object] = []
        self._marks: list[int] = []
        self._memo: dict[int, object] = {}

    def load(self, file: BinaryIO) -> object:
        """Returns what the pickle at the file's position builds; leaves the file behind it."""
        self._stack, self._marks, self._memo = [], [], {}
        for count, (opcode, argument, _) in enumerate(pickletools.genops(file)):
            if count == _MOST_INSTRUCTIONS:
                raise UserError(
                    f"{self.path} has a pickle of more than {_MOST_INSTRUCTIONS} instructions, too many for weights; "
                    f"{_SAVE_WEIGHTS}"
                )
            self._step(opcode.name, argument)
        return self._stack.pop()

    def _step(self, name: str, argument: object) -> None:
        stack, memo = self._stack, self._memo
        if name in _VALUES:
            stack.append(argument)
            return
        if name in _CONSTANTS:
            stack.append(_CONSTANTS[name])
            return
        match name:
            case "BINPUT" | "LONG_BINPUT":
                memo[argument] = stack[-1]  # type: ignore[index]
            case "MEMOIZE":
                memo[len(memo)] = stack[-1]
            case "BINGET" | "LONG_BINGET":
                stack.append(memo[argument])  # type: ignore[index]
            case "MARK":
                self._marks.append(len(stack))
            case "TUPLE":
                stack.append(tuple(self._pop_to_mark()))
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                items = [stack.pop() for _ in range(_TUPLES[name])]
                stack.append(tuple(reversed(items)))
            case "EMPTY_DICT":
                stack.append({})
            case "EMPTY_LIST":
                stack.append([])
            case "SETITEM":
                value, key = stack.pop(), stack.pop()
                _put(stack[-1], key, value)
            case "SETITEMS":
                items = self._pop_to_mark()
                for key, value in zip(items[::2], items[1::2], strict=True):
                    _put(stack[-1], key, value)
            case "APPEND":
                self._extend([stack.pop()])
            case "APPENDS":
                self._extend(self._pop_to_mark())
            case "GLOBAL" | "INST":
                stack.append(self._global(str(argument)))
                if name == "INST":
                    raise ValueError("the instruction INST")
            case "STACK_GLOBAL":
                attribute, module = stack.pop(), stack.pop()
                stack.append(self._global(f"{_text(module)} {_text(attribute)}"))
            case "REDUCE" | "NEWOBJ":
                arguments, callee = stack.pop(), stack.pop()
                if not isinstance(callee, _Call) or not isinstance(arguments, tuple):
                    raise ValueError("something is called that cannot be")
                stack.append(callee.function(*arguments))
            case "BUILD":  # the attributes of an OrderedDict or of an old Parameter, none of which is a weight
                stack.pop()
                if not isinstance(stack[-1], dict | _Tensor):
                    raise ValueError("attributes are set on something that has none")
            case "BINPERSID":
                stack.append(self._persistent(stack.pop()))
            case "PROTO" | "FRAME" | "STOP":
                pass
            case _:
                raise UserError(
                    f"{self.path} uses the pickle instruction {name}, which weights do not need; nothing was executed. "
                    f"If it is not a mere damage, {_SAVE_WEIGHTS}"
                )

    def _pop_to_mark(self) -> list[object]:
        start = self._marks.pop()
        items = self._stack[start:]
        del self._stack[start:]
        return items

    def _extend(self, items: list[object]) -> None:
        target = self._stack[-1]
        if type(target) is not list:
            raise ValueError("something is appended to what is no list")
        target.extend(items)

    def _global(self, name: str) -> object:
        """Returns the stand-in for the exact "module name"; there is no looking up of attributes, modules or parts."""
        if name in _GLOBALS:
            return _GLOBALS[name]
        shown = quoted(name.replace(" ", "."))
        if name.startswith("torch.nn.modules."):
            raise self._whole_model(shown)
        if "sparse" in name or "qtensor" in name:
            kind, remedy = ("sparse", "to_dense") if "sparse" in name else ("quantized", "dequantize")
            raise UserError(
                f"{self.path} has a {kind} tensor ({shown}); expected dense ones. Where it was made, save "
                f"tensor.{remedy}() instead"
            )
        raise UserError(
            f"{self.path} refers to {shown}; expected tensors in plain containers and nothing else. Nothing was "
            f"executed. It may be a whole model: save its state_dict() instead; {_SAVE_WEIGHTS}"
        )

    def _whole_model(self, shown: str) -> UserError:
        return UserError(
            f"{self.path} holds a whole pickled model ({shown}), which cannot be read without running its code; "
            f"nothing was executed. Save its state_dict() instead; {_SAVE_WEIGHTS}"
        )

    def _persistent(self, identity: object) -> _Storage:
        """Returns the storage for ("storage", type, key, location, number of elements[, view of another storage])."""
        if not isinstance(identity, tuple) or not identity:
            raise ValueError("a persistent id is no tuple")
        if identity[0] == "module":
            raise self._whole_model("a class with its source")
        if identity[0] != "storage" or len(identity) not in (5, 6):
            raise ValueError("a persistent id is no storage")
        kind, key, _, numel = identity[1:5]
        if not isinstance(kind, _StorageType):
            raise ValueError("a storage has no type")
        if len(identity) == 6 and identity[5] is not None:
            raise NotImplementedError("storages inside storages, a form of 2017")
        storage = _Storage(_text(key), kind.dtype, _count(numel))
        self.storages.setdefault(storage.key, storage)
        return storage


def _text(value: object) -> str:
    if type(value) is not str:
        raise ValueError("a name is no text")
    return value


# --------------------------------------------------------------------------------------------------------- two formats


@dataclass(frozen=True, slots=True)
class _Span:
    """Where a storage's bytes lie in the file; they are known to lie inside it."""

    start: int
    size: int
    crc: int = 0  # 0: unknown


def _open_zip(file: BinaryIO, unpickler: _Unpickler) -> tuple[object, dict[str, _Span]]:
    """Reads the format of PyTorch 1.6 and later: an archive, not compressed, with ROOT/data.pkl and ROOT/data/KEY."""
    path = unpickler.path
    with zipfile.ZipFile(file) as archive:
        entries = {entry.filename: entry for entry in archive.infolist()}
    pickles = [name for name in entries if name.endswith("/data.pkl") and name.count("/") == 1]
    if len(pickles) != 1:
        raise UserError(f"{path} has {len(pickles)} entries */data.pkl; a PyTorch file has one; {_AGAIN}")
    root = pickles[0].removesuffix("data.pkl")
    if root + "constants.pkl" in entries:
        raise UserError(f"{path} is a TorchScript program, not a state dict; {_SAVE_WEIGHTS}")

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


def _open_stream(file: BinaryIO, unpickler: _Unpickler) -> tuple[object, dict[str, _Span]]:
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
        if _text(key) not in unpickler.storages:
            raise ValueError(f"nothing refers to the storage {key}")
        file.seek(start)
        (numel,) = struct.unpack("<q", file.read(8))
        size = _count(numel) * unpickler.storages[key].dtype.itemsize
        spans[key] = _Span(start + 8, size)
        start += 8 + size
        if start > _size(file):
            raise ValueError(f"storage {key} has {size} bytes, more than are left")
    return tree, spans


def _pickle_too_long(path: Path) -> UserError:
    return UserError(
        f"{path} has a pickle of more than {_LONGEST_PICKLE >> 20} MiB, too long for weights; {_SAVE_WEIGHTS}"
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


# ------------------------------------------------------------------------------------------------- from tree to arrays


def _state_dict(tree: object, path: Path) -> dict[str, _Tensor]:
    if not isinstance(tree, dict):
        raise UserError(
            f"{path} holds one {'tensor' if isinstance(tree, _Tensor) else type(tree).__name__} without a name; "
            f"expected a state dict: {_SAVE_WEIGHTS}"
        )
    wrapped = next((name for name in _WRAPPERS if isinstance(tree.get(name), dict)), None)
    state = tree if wrapped is None else tree[wrapped]
    for key, value in state.items():
        if not isinstance(key, str) or not isinstance(value, _Tensor):
            names = ", ".join(quoted(str(name)) for name in list(state)[:8])
            raise UserError(
                f"{path} has an entry {quoted(str(key))} that is no named tensor among {names}; expected a state dict, "
                f"or one under {', '.join(_WRAPPERS)}: {_SAVE_WEIGHTS}"
            )
    return state


def _read_tensors(
    tensors: dict[str, _Tensor], spans: dict[str, _Span], file: BinaryIO, path: Path
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


def _view(tensor: _Tensor, data: UInt8[np.ndarray, " size"]) -> Shaped[np.ndarray, "..."]:
    size = tensor.dtype.itemsize
    if not tensor.numel:
        return np.empty(tensor.shape, tensor.dtype)
    elements = data[: len(data) // size * size].view(tensor.dtype)[tensor.offset :]
    if tensor.contiguous:
        return elements[: tensor.numel].reshape(tensor.shape)
    strides = [stride * size for stride in tensor.strides]
    return np.lib.stride_tricks.as_strided(elements, tensor.shape, strides).copy()
