"""A message with one field changed: what a peer that lies, or a wire that flips bits, would have sent.

Must not know: what the messages mean.
"""

import random
from collections.abc import Iterator
from typing import Any, TypeVar

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

M = TypeVar("M", bound=Message)

# Bits that a number of each type may have, its sign left alone.
_BITS = {
    FieldDescriptor.TYPE_UINT32: 32,
    FieldDescriptor.TYPE_FIXED32: 32,
    FieldDescriptor.TYPE_INT32: 31,
    FieldDescriptor.TYPE_UINT64: 64,
    FieldDescriptor.TYPE_INT64: 63,
}
# Such as no score is.
_FLOATS = (float("nan"), float("inf"), float("-inf"), 1e30, -1e30)


def fields_of(message: type[Message]) -> frozenset[str]:
    """Names of all fields of a kind of message, and of messages in it, that hold a value."""
    return frozenset(_names(message.DESCRIPTOR))


def _names(message: Any) -> Iterator[str]:
    for field in message.fields:
        if field.message_type is None:
            yield field.name
        else:
            yield from _names(field.message_type)


def corrupted(message: M, draw: random.Random, field: str = "") -> M:
    """A copy in which one value is another; the message as it is if nothing in it can be changed.

    Bytes have a bit flipped, lose their end or get one more; whole numbers are any; others are not finite, or far off.

    Args:
        field: Only of this name; any that is set if empty.
    """
    copy = type(message)()
    copy.CopyFrom(message)
    values = [one for one in _values(copy) if not field or one[1].name == field]
    if values:
        owner, chosen, at = draw.choice(values)
        _change(owner, chosen, at, draw)
    return copy


def _values(message: Message) -> Iterator[tuple[Message, FieldDescriptor, int | None]]:
    """Owner, field, and index if it is repeated, of each value."""
    for field, value in message.ListFields():
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            if field.message_type.fields_by_name["value"].message_type is not None:
                for key in sorted(value):
                    yield from _values(value[key])
        elif field.message_type is not None:
            for one in value if field.is_repeated else (value,):
                yield from _values(one)
        elif field.is_repeated:
            yield from ((message, field, index) for index in range(len(value)))
        else:
            yield message, field, None


def _change(owner: Message, field: FieldDescriptor, at: int | None, draw: random.Random) -> None:
    values = getattr(owner, field.name)
    old = values if at is None else values[at]
    new = _other(field, old, draw)
    if at is None:
        setattr(owner, field.name, new)
    else:
        values[at] = new


def _other(field: FieldDescriptor, old: object, draw: random.Random) -> object:
    if isinstance(old, bytes):
        return _other_bytes(old, draw)
    if isinstance(old, str):
        return f"{draw.getrandbits(64):016x}"
    if isinstance(old, bool):
        return not old
    if isinstance(old, float):
        return draw.choice(_FLOATS)
    if field.type == FieldDescriptor.TYPE_ENUM:
        # Open enumerations take any number.
        return draw.randrange(16, 1 << 16)
    new = draw.getrandbits(_BITS[field.type])
    return new if new != old else new ^ 1


def _other_bytes(old: bytes, draw: random.Random) -> bytes:
    form = draw.choice(("flip", "flip", "cut", "grow")) if old else "grow"
    if form == "cut":
        return old[: draw.randrange(len(old))]
    if form == "grow":
        return old + bytes((draw.getrandbits(8),))
    at = draw.randrange(len(old))
    return old[:at] + bytes((old[at] ^ (1 << draw.randrange(8)),)) + old[at + 1 :]
