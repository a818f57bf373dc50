"""The bytes that each token id stands for, as a session that keeps text is sent them.

A tokenizer writes its vocabulary in one of three ways:

    byte level        every byte as one printable character, as GPT-2 does: what is no printable one, from U+0100 on
    sentence pieces   text, with U+2581 for a space, and <0x0A> for a single byte
    other             whatever decoding the single id gives

Must not know: models, memory.
"""

import re
from collections.abc import Sequence
from typing import Any

_BYTE = re.compile(r"<0x([0-9A-F]{2})>")
_SPACE = "\u2581"


class TokenTexts:
    """Bytes of token ids, by a tokenizer; each id is looked up once."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._byte_of = _bytes_by_character() if _is_byte_level(tokenizer) else {}
        self._special = frozenset(getattr(tokenizer, "all_special_ids", ()))
        self._known: dict[int, bytes] = {}

    def __call__(self, ids: Sequence[int]) -> tuple[bytes, ...]:
        """The bytes of each id."""
        for own in set(ids) - self._known.keys():
            self._known[own] = self._bytes_of(own)
        return tuple(self._known[own] for own in ids)

    def _bytes_of(self, own: int) -> bytes:
        piece = self._tokenizer.convert_ids_to_tokens(own)
        if not isinstance(piece, str) or own in self._special:
            return str(piece or "").encode()
        if self._byte_of and all(character in self._byte_of for character in piece):
            return bytes(self._byte_of[character] for character in piece)
        if (single := _BYTE.fullmatch(piece)) is not None:
            return bytes([int(single[1], 16)])
        if _SPACE in piece:
            return piece.replace(_SPACE, " ").encode()
        text: str = self._tokenizer.decode([own], skip_special_tokens=False, clean_up_tokenization_spaces=False)
        return text.encode()


def _is_byte_level(tokenizer: Any) -> bool:
    backend = getattr(tokenizer, "backend_tokenizer", None)
    return backend is not None and "ByteLevel" in str(getattr(backend, "decoder", ""))


def _bytes_by_character() -> dict[str, int]:
    """GPT-2's way of writing bytes: printable ones as themselves, the others in order from U+0100 on."""
    printable = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAC + 1), *range(0xAE, 0xFF + 1)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(0x100 + at): byte for at, byte in enumerate(others)}
