"""Messages gone wrong, from a seed: on the wire, where bytes need not parse, and in fields, where they always do.

Must not know: what any message means.
"""

import math
from collections.abc import Sequence
from random import Random
from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

# Deeper than protobuf follows (100), by so much that one level more or less does not matter.
_NESTED_LEVELS = 130
_WIRE_TYPES, _START_OF_GROUP = 8, 3
_FIELD_NUMBERS = 20
# Levels of messages in messages that are filled.
_FILLED_LEVELS = 3

_UNSIGNED = (0, 1, 2, 63, 64, 65, 4095, 4096, 16_385, 100_001, 1 << 31, (1 << 32) - 1)
_LONG = (*_UNSIGNED, 1 << 32, (1 << 62) + 1, (1 << 63) - 1, 1 << 63, (1 << 64) - 1)
_FLOATS = (0.0, -0.0, 1.0, -1.0, 0.5, 1e-45, 3.0e38, math.nan, math.inf, -math.inf)
_TEXTS = ("", "/", "a/b", "..", ".", "-", "\0", "\n", " ", "x" * 129, "x" * 4000, "näme", "\U0001f600", "*", "acme/t")


def wire_mutation(random: Random, data: bytes, others: Sequence[bytes]) -> bytes:
    """Bytes of a message, changed in one to three of the ways below."""
    for _ in range(random.choice((1, 1, 1, 2, 3))):
        data = random.choice(_WAYS)(random, data, others)
    return data


def field_mutation(random: Random, message: Message, words: Sequence[str]) -> Message:
    """A copy of a message with one to three of its fields set anew.

    Args:
        words: Texts that mean something to whoever reads the message.
    """
    changed = type(message)()
    changed.CopyFrom(message)
    for _ in range(random.choice((1, 1, 2, 3))):
        _change_a_field(random, changed, words, _FILLED_LEVELS)
    return changed


def _flip(random: Random, data: bytes, others: Sequence[bytes]) -> bytes:
    changed = bytearray(data or b"\0")
    for _ in range(random.choice((1, 1, 2, 8))):
        changed[random.randrange(len(changed))] ^= 1 << random.randrange(8)
    return bytes(changed)


def _truncate(random: Random, data: bytes, others: Sequence[bytes]) -> bytes:
    return data[: random.randrange(len(data) + 1)]


def _splice(random: Random, data: bytes, others: Sequence[bytes]) -> bytes:
    other = random.choice(others)
    return data[: random.randrange(len(data) + 1)] + other[random.randrange(len(other) + 1) :]


def _repeat(random: Random, data: bytes, others: Sequence[bytes]) -> bytes:
    """Fields again: of another message, or of this one many times."""
    return data + random.choice((random.choice(others), data * random.choice((1, 2, 16))))


def _insert_varint(random: Random, data: bytes, others: Sequence[bytes]) -> bytes:
    """The largest there is, and longer ones than any may be."""
    varint = random.choice((b"\xff" * 9 + b"\x01", b"\xff" * 10 + b"\x01", b"\x80" * 20, b"\xff\xff\xff\xff\x0f"))
    return _inserted(random, data, _tag(random, 0) + varint)


def _nest(random: Random, data: bytes, others: Sequence[bytes]) -> bytes:
    """Garbage inside a field, at some depth."""
    inner = random.randbytes(random.choice((0, 1, 16, 300)))
    for _ in range(random.choice((1, 2, 5, _NESTED_LEVELS))):
        inner = _tag(random, 2) + _varint(len(inner)) + inner
    return _inserted(random, data, random.choice((inner, inner, _tag(random, _START_OF_GROUP) * _NESTED_LEVELS)))


def _mistype(random: Random, data: bytes, others: Sequence[bytes]) -> bytes:
    """A known field number with another wire type, groups and unknown types included."""
    return _inserted(random, data, _tag(random, random.randrange(_WIRE_TYPES)) + random.randbytes(random.randrange(12)))


def _lie_about_length(random: Random, data: bytes, others: Sequence[bytes]) -> bytes:
    return _inserted(random, data, _tag(random, 2) + _varint(random.choice((len(data) + 1, 1 << 31, 1 << 40))))


def _drop_a_slice(random: Random, data: bytes, others: Sequence[bytes]) -> bytes:
    first, end = sorted(random.randrange(len(data) + 1) for _ in range(2))
    return data[:first] + data[end:]


def _noise(random: Random, data: bytes, others: Sequence[bytes]) -> bytes:
    return random.randbytes(random.choice((1, 7, 64, 1000)))


_WAYS = (
    _flip,
    _flip,
    _truncate,
    _splice,
    _repeat,
    _insert_varint,
    _nest,
    _mistype,
    _lie_about_length,
    _drop_a_slice,
    _noise,
)


def _inserted(random: Random, data: bytes, new: bytes) -> bytes:
    """At the end, where fields begin, as often as anywhere."""
    at = len(data) if random.random() < 0.5 else random.randrange(len(data) + 1)
    return data[:at] + new + data[at:]


def _tag(random: Random, wire_type: int) -> bytes:
    return _varint(random.randrange(1, _FIELD_NUMBERS) << 3 | wire_type)


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _change_a_field(random: Random, message: Message, words: Sequence[str], levels: int) -> None:
    fields = message.DESCRIPTOR.fields
    if not fields:
        return
    field = random.choice(fields)
    if random.random() < 0.1:
        message.ClearField(field.name)
    elif field.message_type is not None and field.message_type.GetOptions().map_entry:
        _change_map(random, message, field, words, levels)
    elif field.is_repeated:
        _change_repeated(random, message, field, words, levels)
    elif field.message_type is not None:
        inner = getattr(message, field.name)
        inner.SetInParent()
        if levels:
            _change_a_field(random, inner, words, levels - 1)
    else:
        setattr(message, field.name, _value(random, field, words))


def _change_repeated(
    random: Random, message: Message, field: FieldDescriptor, words: Sequence[str], levels: int
) -> None:
    values = getattr(message, field.name)
    if len(values) and random.random() < 0.3:
        del values[random.randrange(len(values))]
    elif field.message_type is not None:
        one = random.choice(values) if len(values) and random.random() < 0.7 else values.add()
        if levels:
            _change_a_field(random, one, words, levels - 1)
    else:
        values.extend(_value(random, field, words) for _ in range(random.choice((1, 2, 100))))


def _change_map(random: Random, message: Message, field: FieldDescriptor, words: Sequence[str], levels: int) -> None:
    values = getattr(message, field.name)
    known = [*values]
    key = random.choice(known) if known and random.random() < 0.7 else random.choice((*_TEXTS, *words))
    if known and random.random() < 0.2:
        del values[random.choice(known)]
    elif levels:
        _change_a_field(random, values[key], words, levels - 1)


def _value(random: Random, field: FieldDescriptor, words: Sequence[str]) -> Any:
    """A value of a plain field: on the edge of something, or any."""
    kind = field.type
    if kind == FieldDescriptor.TYPE_STRING:
        return random.choice((*_TEXTS, *words, *words))
    if kind == FieldDescriptor.TYPE_BYTES:
        return random.randbytes(random.choice((0, 1, 3, 4, 16, 256, 3000)))
    if kind == FieldDescriptor.TYPE_BOOL:
        return random.random() < 0.5
    if kind == FieldDescriptor.TYPE_ENUM:
        return random.choice((-1, 0, 1, 2, 3, 7, 77, 2**31 - 1))
    if kind in (FieldDescriptor.TYPE_FLOAT, FieldDescriptor.TYPE_DOUBLE):
        return random.choice((*_FLOATS, random.uniform(-2, 2)))
    if kind in (FieldDescriptor.TYPE_UINT32, FieldDescriptor.TYPE_FIXED32):
        return random.choice((*_UNSIGNED, random.getrandbits(32)))
    if kind in (FieldDescriptor.TYPE_UINT64, FieldDescriptor.TYPE_FIXED64):
        return random.choice((*_LONG, random.getrandbits(64)))
    signed = 31 if kind in (FieldDescriptor.TYPE_INT32, FieldDescriptor.TYPE_SINT32) else 63
    return random.choice((-(1 << signed), -1, 0, 1, (1 << signed) - 1, random.getrandbits(signed)))
