"""What a PyTorch file's pickle describes, found out without running it.

A pickle is a program. Here it is read by a small interpreter of its own instead of by `pickle`: it knows the
instructions that build plain data and tensors, it holds no reference to any Python function but the stand-ins in
`_GLOBALS`, and sizes are checked before memory is taken.
"""

import math
import pickletools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import ml_dtypes
import numpy as np

from jaxnets.errors import UserError, quoted

_MOST_INSTRUCTIONS = 2_000_000  # about 50 000 tensors; a ResNet-152 takes 30 000
_MOST_DIMENSIONS = 32
SAVE_WEIGHTS = (
    "where PyTorch is at hand and the source is trusted, load it there and save the weights alone: "
    "torch.save(model.state_dict(), PATH)"
)


@dataclass(frozen=True, slots=True)
class StorageType:
    dtype: np.dtype


@dataclass(frozen=True, slots=True)
class Storage:
    """The bytes that tensors look at: known by a key, read later and only if a tensor of the state dict needs them."""

    key: str
    dtype: np.dtype
    numel: int

    @property
    def nbytes(self) -> int:
        return self.numel * self.dtype.itemsize


@dataclass(frozen=True, slots=True)
class Tensor:
    storage: Storage
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


def _tensor(storage: object, offset: object, shape: object, strides: object) -> Tensor:
    return _typed_tensor(storage, offset, shape, strides, None)


def _tensor_v2(
    storage: object, offset: object, shape: object, strides: object, grad: object, hooks: object, flags: object = None
) -> Tensor:
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
) -> Tensor:
    _refuse_flags(flags)
    if not isinstance(dtype, np.dtype):
        raise ValueError("a tensor's dtype is none")
    return _typed_tensor(storage, offset, shape, strides, dtype)


def _refuse_flags(flags: object) -> None:
    if flags:
        raise NotImplementedError("a tensor that is a conjugated or negated view")


def _typed_tensor(storage: object, offset: object, shape: object, strides: object, dtype: np.dtype | None) -> Tensor:
    """Returns the tensor; it lies inside its storage, whatever the file says."""
    if not isinstance(storage, Storage):
        raise ValueError("a tensor has no storage")
    dtype = storage.dtype if dtype is None else dtype
    tensor = Tensor(storage, dtype, as_count(offset), _counts(shape), _counts(strides))
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
    return tuple(as_count(value) for value in values)


def as_count(value: object) -> int:
    if type(value) is not int or not 0 <= value < 1 << 48:
        raise ValueError("a size, offset or stride is no whole number from 0 to 2**48")
    return value


def _parameter(data: object, *_ignored: object) -> Tensor:
    if not isinstance(data, Tensor):
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
    **{f"torch {name}": StorageType(dtype) for name, dtype in _STORAGES.items()},
    **{f"torch {dtype}": np.dtype(dtype) for dtype in ("uint16", "uint32", "uint64")},  # those without a storage type
    "collections OrderedDict": _Call(_dictionary),
    "torch Size": _Call(_counts),
    "torch._utils _rebuild_parameter": _Call(_parameter),
    "torch._utils _rebuild_parameter_with_state": _Call(_parameter),
    "torch._utils _rebuild_tensor": _Call(_tensor),
    "torch._utils _rebuild_tensor_v2": _Call(_tensor_v2),
    "torch._utils _rebuild_tensor_v3": _Call(_tensor_v3),
    "torch.nn.parameter Parameter": _Call(_parameter),
    "torch.storage UntypedStorage": StorageType(np.dtype(np.uint8)),
}


_NUMBERS = ("BINFLOAT", "BININT", "BININT1", "BININT2", "LONG1")
_TEXTS = ("BINUNICODE", "SHORT_BINUNICODE", "BINSTRING", "SHORT_BINSTRING", "BINBYTES", "SHORT_BINBYTES")
_VALUES = frozenset(_NUMBERS + _TEXTS)  # instructions that push their argument
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


class TorchUnpickler:
    """Reads pickles made of plain data and tensors; anything else is refused by its name."""

    def __init__(self, path: Path):
        self.path = path
        self.storages: dict[str, Storage] = {}  # as the pickle first refers to them
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
                    f"{SAVE_WEIGHTS}"
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
                stack.append(self._global(f"{as_text(module)} {as_text(attribute)}"))
            case "REDUCE" | "NEWOBJ":
                arguments, callee = stack.pop(), stack.pop()
                if not isinstance(callee, _Call) or not isinstance(arguments, tuple):
                    raise ValueError("something is called that cannot be")
                stack.append(callee.function(*arguments))
            case "BUILD":  # the attributes of an OrderedDict or of an old Parameter, none of which is a weight
                stack.pop()
                if not isinstance(stack[-1], dict | Tensor):
                    raise ValueError("attributes are set on something that has none")
            case "BINPERSID":
                stack.append(self._persistent(stack.pop()))
            case "PROTO" | "FRAME" | "STOP":
                pass
            case _:
                raise UserError(
                    f"{self.path} uses the pickle instruction {name}, which weights do not need; nothing was executed. "
                    f"If it is not a mere damage, {SAVE_WEIGHTS}"
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
            f"executed. It may be a whole model: save its state_dict() instead; {SAVE_WEIGHTS}"
        )

    def _whole_model(self, shown: str) -> UserError:
        return UserError(
            f"{self.path} holds a whole pickled model ({shown}), which cannot be read without running its code; "
            f"nothing was executed. Save its state_dict() instead; {SAVE_WEIGHTS}"
        )

    def _persistent(self, identity: object) -> Storage:
        """Returns the storage for ("storage", type, key, location, number of elements[, view of another storage])."""
        if not isinstance(identity, tuple) or not identity:
            raise ValueError("a persistent id is no tuple")
        if identity[0] == "module":
            raise self._whole_model("a class with its source")
        if identity[0] != "storage" or len(identity) not in (5, 6):
            raise ValueError("a persistent id is no storage")
        kind, key, _, numel = identity[1:5]
        if not isinstance(kind, StorageType):
            raise ValueError("a storage has no type")
        if len(identity) == 6 and identity[5] is not None:
            raise NotImplementedError("storages inside storages, a form of 2017")
        storage = Storage(as_text(key), kind.dtype, as_count(numel))
        self.storages.setdefault(storage.key, storage)
        return storage


def as_text(value: object) -> str:
    if type(value) is not str:
        raise ValueError("a name is no text")
    return value
