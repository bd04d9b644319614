"""What a PyTorch file's pickle describes, found out without running it.

A pickle is a program. Here it is read by a small interpreter of its own: it knows the instructions that build plain
data and tensors, it holds no reference to any Python function but the stand-ins in `_GLOBALS`, and sizes are checked
before memory is taken. Every other class or function that a file names (the optimizer's, the arguments of a training
program, os.system) is an `Inert` object, its name and nothing else: calling it gives another one.

A `pickle.Unpickler` whose `find_class` returns the same stand-ins would be shorter, but not as safe. In Python 3.11,
nine bytes make it take 64 GiB (the instruction LONG_BINPUT at a high index), a dict whose key is a tuple of tuples
keeps it hashing for as long as one likes (two more bytes double the time), or overflows the stack and ends the process,
and BUILD reaches `__setstate__` and the attributes of whatever stands on the stack, the stand-ins among them.
"""

import math
import pickletools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import ml_dtypes
import numpy as np

from jaxnets.errors import UserError

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
class Inert:
    """A class, a function, or what one of them made: known by name, and never looked up or called."""

    name: str


@dataclass(frozen=True, slots=True)
class _Call:
    """What stands for a callable of PyTorch: the only thing that the pickle's instructions can call."""

    function: Callable[..., object]


def _tensor(storage: object, offset: object, shape: object, strides: object) -> Tensor | Inert:
    return _typed_tensor(storage, offset, shape, strides, None)


def _tensor_v2(
    storage: object, offset: object, shape: object, strides: object, grad: object, hooks: object, flags: object = None
) -> Tensor | Inert:
    return _FLAGGED if flags else _typed_tensor(storage, offset, shape, strides, None)


def _tensor_v3(
    storage: object,
    offset: object,
    shape: object,
    strides: object,
    grad: object,
    hooks: object,
    dtype: object,
    flags: object = None,
) -> Tensor | Inert:
    if not isinstance(dtype, np.dtype | Inert):
        raise ValueError("a tensor's dtype is none")
    return _FLAGGED if flags else _typed_tensor(storage, offset, shape, strides, dtype)


_FLAGGED = Inert("a conjugated or negated view")


def _typed_tensor(
    storage: object, offset: object, shape: object, strides: object, dtype: np.dtype | Inert | None
) -> Tensor | Inert:
    """Returns the tensor; it lies inside its storage, whatever the file says."""
    for given in (storage, dtype):
        if isinstance(given, Inert):
            return given
    if not isinstance(storage, Storage):
        raise ValueError("a tensor has no storage")
    dtype = dtype if isinstance(dtype, np.dtype) else storage.dtype
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


def _parameter(data: object, *_ignored: object) -> Tensor | Inert:
    if not isinstance(data, Tensor | Inert):
        raise ValueError("a parameter has no tensor")
    return data


def _of_type(function: object, kind: object, arguments: object, *_ignored: object) -> object:
    """A tensor with attributes of Python's, or of another class: a plain one if its class is one of PyTorch's own."""
    if isinstance(kind, Inert):
        return kind
    if not isinstance(function, _Call) or not isinstance(arguments, tuple):
        raise ValueError("a tensor is made by what makes none")
    return function.function(*arguments)


def _dictionary(items: object = ()) -> dict[object, object]:
    """An OrderedDict; Python 2 gives it its items as a list of pairs, later ones set them."""
    found: dict[object, object] = {}
    for item in items if isinstance(items, list | tuple) else [items]:
        if not isinstance(item, list | tuple) or len(item) != 2:
            raise ValueError("a dict is made of what are no pairs")
        _put(found, item[0], item[1])
    return found


def _default_dictionary(*_factory: object) -> dict[object, object]:
    return {}


def _put(target: object, key: object, value: object) -> None:
    """Sets an item; keys hash in constant time, since tuples in tuples hash in exponential time."""
    if isinstance(target, Inert):
        return
    if type(target) is not dict:
        raise ValueError("an item is set on something else than a dict")
    plain = type(key) in (str, bool, type(None), Inert) or (type(key) is int and abs(key) < 1 << 31)
    target[key if plain else Inert(f"a {type(key).__name__}")] = value


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
    "collections defaultdict": _Call(_default_dictionary),
    "torch Size": _Call(_counts),
    "torch Tensor": _Call(_parameter),
    "torch._tensor _rebuild_from_type_v2": _Call(_of_type),
    "torch._utils _rebuild_parameter": _Call(_parameter),
    "torch._utils _rebuild_parameter_with_state": _Call(_parameter),
    "torch._utils _rebuild_tensor": _Call(_tensor),
    "torch._utils _rebuild_tensor_v2": _Call(_tensor_v2),
    "torch._utils _rebuild_tensor_v3": _Call(_tensor_v3),
    "torch.nn.parameter Parameter": _Call(_parameter),
    "torch.storage UntypedStorage": StorageType(np.dtype(np.uint8)),
}


# Instructions that push their argument.
_NUMBERS = ("BINFLOAT", "BININT", "BININT1", "BININT2", "LONG1", "LONG4")
_TEXTS = ("BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "BINSTRING", "SHORT_BINSTRING")
_BYTES = ("BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8")
_VALUES = frozenset(_NUMBERS + _TEXTS + _BYTES)
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


class TorchUnpickler:
    """Reads pickles into plain data, `Tensor`s and, for whatever else they name, `Inert` objects."""

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
            case "POP":
                if self._marks and self._marks[-1] == len(stack):
                    self._marks.pop()
                else:
                    stack.pop()
            case "POP_MARK":
                self._pop_to_mark()
            case "EMPTY_DICT":
                stack.append({})
            case "EMPTY_LIST" | "EMPTY_SET":  # nothing asks a set for what is in it, and lists do not hash
                stack.append([])
            case "FROZENSET":
                stack.append(self._pop_to_mark())
            case "SETITEM":
                value, key = stack.pop(), stack.pop()
                _put(stack[-1], key, value)
            case "SETITEMS":
                items = self._pop_to_mark()
                for key, value in zip(items[::2], items[1::2], strict=True):
                    _put(stack[-1], key, value)
            case "APPEND":
                self._extend([stack.pop()])
            case "APPENDS" | "ADDITEMS":
                self._extend(self._pop_to_mark())
            case "GLOBAL":
                stack.append(_global(str(argument)))
            case "STACK_GLOBAL":
                attribute, module = stack.pop(), stack.pop()
                stack.append(_global(f"{as_text(module)} {as_text(attribute)}"))
            case "INST":
                self._pop_to_mark()
                stack.append(_called(_global(str(argument)), None))
            case "OBJ":
                stack.append(_called(self._pop_to_mark()[0], None))
            case "REDUCE" | "NEWOBJ":
                arguments, callee = stack.pop(), stack.pop()
                stack.append(_called(callee, arguments))
            case "NEWOBJ_EX":
                _, _, callee = stack.pop(), stack.pop(), stack.pop()
                stack.append(_called(callee, None))
            case "BUILD":  # the attributes of an OrderedDict or of an old Parameter, none of which is a weight
                stack.pop()
                if not isinstance(stack[-1], dict | Tensor | Inert):
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
        if type(target) is list:
            target.extend(items)
        elif not isinstance(target, Inert):
            raise ValueError("something is appended to what is no list")

    def _persistent(self, identity: object) -> Storage | Inert:
        """Returns the storage for ("storage", type, key, location, number of elements[, view of another storage])."""
        if not isinstance(identity, tuple) or not identity:
            raise ValueError("a persistent id is no tuple")
        if identity[0] == "module":
            return Inert("a class with its source")
        if identity[0] != "storage" or len(identity) not in (5, 6):
            raise ValueError("a persistent id is no storage")
        kind, key, _, numel = identity[1:5]
        if isinstance(kind, Inert):
            return kind
        if not isinstance(kind, StorageType):
            raise ValueError("a storage has no type")
        if len(identity) == 6 and identity[5] is not None:
            return Inert("a storage inside another, a form of 2017")
        storage = Storage(as_text(key), kind.dtype, as_count(numel))
        self.storages.setdefault(storage.key, storage)
        return storage


def _global(name: str) -> object:
    """Returns the stand-in for the exact "module name"; there is no looking up of attributes, modules or parts."""
    return _GLOBALS[name] if name in _GLOBALS else Inert(name.replace(" ", "."))


def _called(callee: object, arguments: object) -> object:
    if isinstance(callee, Inert):
        return callee
    if not isinstance(callee, _Call) or not isinstance(arguments, tuple):
        raise ValueError("something is called that cannot be")
    return callee.function(*arguments)


def as_text(value: object) -> str:
    if type(value) is not str:
        raise ValueError("a name is no text")
    return value
