"""Searching a session for a place, and comparing two sessions.

    #12          the bookmark of that index
    @4096        the bookmark at or before that position
    id:15,11     where these token ids follow each other
    other text   where the text says so, if the session keeps its text

Must not know: HTTP, templates.
"""

import re

import numpy as np

from memsvc.inspector import rows, timeline
from memsvc.inspector.door import Reader
from memsvc.inspector.shapes import CompareView, Hit, SearchView
from memsvc.inspector.views import BRIEF_TOKENS, WHOLE_PARTS, passage, session_of
from memsvc.session.overview import columns_of, recalls_of
from protos.memsvc.v1 import types_pb2

HITS_MAX = 50
# Tokens that one look reads, and that one search or comparison goes through.
READ_TOKENS = 100_000
SEARCH_TOKENS_MAX = 4_000_000
QUERY_CHARACTERS_MAX = 200
IDS_MAX = 32
# Tokens that two looks for words share: words of more are found if they do not lie across the two.
OVERLAP_TOKENS = 256
NAMES_MAX = 100

_BOOKMARK = re.compile(r"#\s*(\d{1,18})")
_POSITION = re.compile(r"@\s*(\d{1,18})")
_IDS = re.compile(r"id:\s*(\d{1,10}(?:[\s,]+\d{1,10})*)")
_EXPECTED = "expected #BOOKMARK, @POSITION or id:ID,ID"


async def search_view(reader: Reader, name: str, query: str) -> SearchView:
    """Places that a query names."""
    session = await session_of(reader, name)
    asked = query.strip()[:QUERY_CHARACTERS_MAX]
    found: list[int] = []
    problem = ""
    if own := _BOOKMARK.fullmatch(asked):
        listed = (await reader.bookmarks(name, int(own[1]), 1)).bookmarks
        found = [one.position for one in listed]
        problem = "" if found else f"expected a bookmark index below {session.bookmarks}, got {own[1]}"
    elif own := _POSITION.fullmatch(asked):
        found = [int(own[1])] if int(own[1]) < session.tokens else []
        problem = "" if found else f"expected a position below {session.tokens}, got {own[1]}"
    elif own := _IDS.fullmatch(asked):
        ids = [int(one) for one in re.findall(r"\d+", own[1])][:IDS_MAX]
        found = await _places_of(reader, name, ids, session.tokens)
    elif asked:
        found, keeps = await _places_of_words(reader, name, asked, session.tokens)
        problem = "" if keeps else f"{_EXPECTED}, got words: this session keeps no text"
    positions = (await reader.on_session(name, columns_of)).positions
    hits = []
    for position in found[:HITS_MAX]:
        before = int(np.searchsorted(positions, position, side="right")) - 1
        brief = await passage(reader, name, position, BRIEF_TOKENS)
        hits.append(Hit(position, before if before >= 0 else None, brief))
    return SearchView(session, query, hits, len(found) > HITS_MAX, problem)


async def _places_of(reader: Reader, name: str, ids: list[int], tokens: int) -> list[int]:
    """Positions from which on these ids follow each other; one more than are shown, if there are so many."""
    found: list[int] = []
    wanted = np.array(ids, dtype=np.int64)
    for first in range(0, min(tokens, SEARCH_TOKENS_MAX), READ_TOKENS - IDS_MAX):
        read = await reader.tokens(name, first, READ_TOKENS)
        own = np.frombuffer(read.ids, dtype="<u4").astype(np.int64)
        if len(own) < len(wanted):
            continue
        places = np.concatenate([np.arange(one.first, one.first + one.count) for one in read.positions])
        windows = np.lib.stride_tricks.sliding_window_view(own, len(wanted))
        for at in np.flatnonzero((windows == wanted).all(axis=1)).tolist():
            # Ids on the two sides of a gap do not follow each other.
            together = places[at + len(wanted) - 1] - places[at] == len(wanted) - 1
            if together and places[at] not in found[-IDS_MAX:]:
                found.append(int(places[at]))
        if len(found) > HITS_MAX:
            break
    return found


async def _places_of_words(reader: Reader, name: str, words: str, tokens: int) -> tuple[list[int], bool]:
    """Positions of the tokens in which these words begin, whatever their case, and whether there is any text."""
    wanted, found, keeps = words.casefold(), list[int](), False
    for first in range(0, min(tokens, SEARCH_TOKENS_MAX), READ_TOKENS - OVERLAP_TOKENS):
        read = rows.tokens_of(await reader.tokens(name, first, READ_TOKENS))
        keeps = keeps or any(own.text is not None for own in read)
        texts = [(own.text or "").casefold() for own in read]
        ends = np.cumsum([len(text) for text in texts])
        whole, at = "".join(texts), -1
        while len(found) <= HITS_MAX and (at := whole.find(wanted, at + 1)) >= 0:
            position = read[int(np.searchsorted(ends, at, side="right"))].position
            if position not in found[-OVERLAP_TOKENS:]:
                found.append(position)
        if len(found) > HITS_MAX or not keeps:
            break
    return found, keeps


async def compare_view(reader: Reader, left: str, right: str) -> CompareView:
    """Two sessions beside each other; what is not named is left out."""
    listed = await reader.sessions("", NAMES_MAX)
    names = [own.name for own in listed.sessions]
    if not left or not right:
        return CompareView(None, None, None, None, [], 0, 0, names)
    infos = [(await reader.session(name)).session for name in (left, right)]
    end = max(1, *(max(own.tokens, own.tail_position) for own in infos))
    bins = []
    for info in infos:
        columns = await reader.on_session(info.name, columns_of)
        recalls = await reader.on_session(info.name, recalls_of)
        bins.append(timeline.binned(columns.positions, 0, end, WHOLE_PARTS, [own.blocks for own in recalls]))
    compared = min(READ_TOKENS, *(own.tokens for own in infos))
    return CompareView(
        left=rows.session_row(infos[0]),
        right=rows.session_row(infos[1]),
        left_bins=bins[0],
        right_bins=bins[1],
        differences=rows.differences(infos[0].spec, infos[1].spec),
        shared_tokens=await _shared(reader, infos, compared),
        compared_tokens=compared,
        names=names,
    )


async def _shared(reader: Reader, infos: list[types_pb2.SessionInfo], compared: int) -> int:
    """How many of the first tokens are the same in both."""
    if compared == 0:
        return 0
    left, right = [np.frombuffer((await reader.tokens(own.name, 0, compared)).ids, dtype="<u4") for own in infos]
    least = min(len(left), len(right))
    unlike = np.flatnonzero(left[:least] != right[:least])
    return int(unlike[0]) if len(unlike) else least
