"""How values stand on a page: text made inert, numbers and moments as people read them.

Markup is escaped by the templates. What is done here is against text that HTML would let through: control characters,
direction changes, and lines without an end.

Must not know: HTTP, sessions.
"""

import datetime
import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass, replace
from urllib.parse import quote

from memsvc.inspector.shapes import Passage

# Characters of one piece of text on a page; a JSON twin has all of them.
TEXT_CHARACTERS_MAX = 400
# U+2400 SYMBOL FOR NULL: those after it stand for the controls in order.
_PICTURES = 0x2400
_BLANK = "\u2423"
# Empty lines, which a passage has no room for.
_LINES = re.compile(r"\n\s*\n\s*")
_DELETE, _DELETE_PICTURE = 0x7F, "\u2421"


def shown(text: str, most: int = TEXT_CHARACTERS_MAX) -> str:
    """Text that only shows itself: controls and format characters stand as visible signs, and what is long is cut."""
    return "".join(_sign(one) for one in text[:most]) + ("\u2026" if len(text) > most else "")


def shown_lines(text: str) -> str:
    """As `shown`, but what breaks a line or indents it does so."""
    most = TEXT_CHARACTERS_MAX
    return "".join(one if one in "\n\t" else _sign(one) for one in text[:most]) + ("\u2026" if len(text) > most else "")


def _sign(character: str) -> str:
    code = ord(character)
    if code < 0x20:
        return chr(_PICTURES + code)
    if code == _DELETE:
        return _DELETE_PICTURE
    # Cc controls, Cf format (direction marks among them), Cs half a pair, Co private, Zl and Zp line breaks.
    if unicodedata.category(character) in ("Cc", "Cf", "Cs", "Co", "Zl", "Zp"):
        return f"\u27e8U+{code:04X}\u27e9"
    return character


@dataclass(frozen=True)
class Run:
    """A piece of a passage: text that goes on, or one token's id; `marked` where a token is pointed at."""

    words: str
    is_id: bool
    marked: bool


def runs(passage: Passage, marked: Iterable[int] = ()) -> list[Run]:
    """A passage in pieces; `marked` are positions."""
    points = frozenset(marked)
    found: list[Run] = []
    for token in passage.tokens:
        mark, is_id = token.position in points, token.text is None
        words = str(token.id) if token.text is None else shown_lines(token.text)
        if mark and not is_id:
            # The space before a word is not what is pointed at; a token of nothing else is shown by a sign.
            bare = words.lstrip()
            _go_on(found, words[: len(words) - len(bare)] if bare else "")
            found.append(Run(bare or _BLANK, False, True))
        elif is_id:
            found.append(Run(words, True, mark))
        else:
            _go_on(found, words)
    return [replace(run, words=_LINES.sub("\n", run.words)) for run in found]


def _go_on(found: list[Run], words: str) -> None:
    """Adds text that is not marked."""
    if found and not (found[-1].marked or found[-1].is_id):
        found[-1] = Run(found[-1].words + words, False, False)
    elif words:
        found.append(Run(words, False, False))


def count(value: int) -> str:
    """A whole number with its thousands apart."""
    return f"{value:,}"


def short(value: int) -> str:
    """A whole number in four signs or so."""
    for size, unit in ((10**9, "G"), (10**6, "M"), (10**4, "K")):
        if value >= size:
            scaled = value / (1000 if unit == "K" else size)
            return f"{scaled:.1f}".rstrip("0").rstrip(".") + unit
    return f"{value:,}"


def size(value: int) -> str:
    """Bytes in the unit that suits them."""
    scaled = float(value)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if scaled < 1024:
            return f"{scaled:.0f} {unit}" if unit == "B" else f"{scaled:.1f} {unit}"
        scaled /= 1024
    return f"{scaled:.1f} TiB"


def moment(unix_ms: int) -> str:
    """A moment, UTC, to the minute."""
    return f"{datetime.datetime.fromtimestamp(unix_ms / 1000, datetime.UTC):%Y-%m-%d %H:%M}"


def path(name: str) -> str:
    """A session's name within a path."""
    return quote(name, safe="/")
