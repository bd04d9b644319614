"""Reads `tf.train.Example` messages, as far as a classifier needs them, without TensorFlow and without a copy.

An Example is a map from names to features, each a list of byte strings, of floats or of integers
(tensorflow/core/example/feature.proto), in protobuf's wire format (protobuf.dev/programming-guides/encoding): fields
with a number and a wire type, of which strings, messages and packed numbers say their length first. So a large feature
is passed over without being read.
"""

from collections.abc import Iterator, Mapping
from typing import NamedTuple, TypeAlias

Buffer: TypeAlias = bytes | memoryview

_VARINT, _FIXED64, _LENGTH, _FIXED32 = 0, 1, 2, 5  # wire types
_KINDS = {1: "bytes", 2: "floats", 3: "integers"}  # field numbers of Feature


class Feature(NamedTuple):
    """A feature whose values are not looked at yet."""

    kind: str  # "bytes", "floats", "integers", or "nothing"
    content: memoryview  # of the list message

    def byte_strings(self) -> list[memoryview]:
        """Returns the values of a feature of the kind "bytes"."""
        return [value for number, value in _fields(self.content) if number == 1 and isinstance(value, memoryview)]

    def integers(self) -> list[int]:
        """Returns the values of a feature of the kind "integers"."""
        found: list[int] = []
        for number, value in _fields(self.content):
            if number != 1:
                continue
            if isinstance(value, int):
                found.append(value)
            else:  # packed
                position = 0
                while position < len(value):
                    one, position = _varint(value, position)
                    found.append(one)
        return [value - (1 << 64) if value >> 63 else value for value in found]


def read_example(message: Buffer) -> Mapping[str, Feature]:
    """Returns the features of a serialised Example by name.

    Raises:
        ValueError: if it is no such message.
    """
    found: dict[str, Feature] = {}
    for number, features in _fields(memoryview(message)):
        if number != 1:
            continue
        for _, entry in _fields(_message(features)):
            name, feature = "", Feature("nothing", memoryview(b""))
            for part, value in _fields(_message(entry)):
                if part == 1:
                    name = str(_message(value), "utf-8")
                elif part == 2:
                    for kind, content in _fields(_message(value)):
                        if kind in _KINDS:
                            feature = Feature(_KINDS[kind], _message(content))
            found[name] = feature
    return found


def _message(value: int | memoryview) -> memoryview:
    if isinstance(value, int):
        raise ValueError("a number where a message should be")
    return value


def _fields(message: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """Yields the number and the value of each field of a message: an integer, or the bytes of what has a length."""
    position, end = 0, len(message)
    while position < end:
        key, position = _varint(message, position)
        number, wire = key >> 3, key & 7
        value: int | memoryview
        if wire == _VARINT:
            value, position = _varint(message, position)
        elif wire in (_LENGTH, _FIXED64, _FIXED32):
            if wire == _LENGTH:
                length, position = _varint(message, position)
            else:
                length = 8 if wire == _FIXED64 else 4
            if position + length > end:
                raise ValueError("a field that is longer than its message")
            value, position = message[position : position + length], position + length
        else:
            raise ValueError(f"a field of the wire type {wire}, which is none")
        yield number, value


def _varint(data: memoryview, position: int) -> tuple[int, int]:
    """Returns a number in base 128, the lowest seven bits first, and the position behind it."""
    value = shift = 0
    while True:
        if position >= len(data) or shift > 63:
            raise ValueError("a number that does not end")
        byte = data[position]
        value |= (byte & 0x7F) << shift
        position += 1
        if byte < 0x80:
            return value & 0xFFFFFFFFFFFFFFFF, position
        shift += 7
