"""What the reading commands print: records for JSON, and tables of them.

Invariants:
    A record's keys are stable; `positions` are [first, last], gaps [first, count], enumerations lower-case words.
Must not know: gRPC.
"""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any

from memsvc.geometry import BLOCK_TOKENS
from protos.memsvc.v1 import graph_pb2, memory_pb2, session_pb2, types_pb2

Record = dict[str, Any]

_SESSION_FIELDS = (
    "name tokens tail_position bookmarks chains links blocks stored_bytes epoch writer created_unix_ms finder_status "
    "id parent_id fork_position snapshots"
)
_SNAPSHOT_FIELDS = "name position bookmarks created_unix_ms"
_VOTE_FIELDS = "position bookmark stream similarity cut contribution"
_LINK_FIELDS = "source target weight worth"
_SEARCH_FIELDS = "position checkpoints_across compared_across last_stage similarity"


def session(info: types_pb2.SessionInfo) -> Record:
    """A session's record."""
    record: Record = {name: getattr(info, name) for name in _SESSION_FIELDS.split()}
    record["token_gaps"] = _ranges(info.token_gaps)
    record["block_gaps"] = _ranges(info.block_gaps)
    return record


def snapshot(one: session_pb2.Snapshot) -> Record:
    """A snapshot's record."""
    return {name: getattr(one, name) for name in _SNAPSHOT_FIELDS.split()}


def bookmark(one: graph_pb2.Bookmark) -> Record:
    """A bookmark's record."""
    record: Record = {name: getattr(one, name) for name in "index position block chain signal forced".split()}
    record["links"] = [{"parent": link.parent, "weight": link.weight} for link in one.links]
    return record


def explanation(answer: graph_pb2.ExplainResponse) -> Record:
    """A recall's record, with the votes behind each block."""
    recall = answer.recall
    record: Record = {name: getattr(recall, name) for name in "seq mean std candidates".split()}
    record["asked_at"] = recall.asked_at_position
    record["blocks"] = [_block(one) for one in recall.blocks]
    record["chosen"] = [_explained(one) for one in answer.chosen]
    record["below_cut"] = [_explained(one) for one in answer.below_cut]
    record["finder_status"] = answer.finder_status
    record["searches"] = [_search(one) for one in answer.searches]
    return record


def sessions_table(record: Record) -> str:
    """One line a session."""
    heads = ("NAME", "TOKENS", "BLOCKS", "BOOKMARKS", "CHAINS", "LINKS", "STORED", "WRITER", "FINDER")
    return table(
        heads,
        (
            (
                one["name"],
                one["tokens"],
                one["blocks"],
                one["bookmarks"],
                one["chains"],
                one["links"],
                f"{one['stored_bytes'] / 2**20:.1f} MiB",
                one["writer"] or "-",
                one["finder_status"] or "-",
            )
            for one in record["sessions"]
        ),
    )


def snapshots_table(record: Record) -> str:
    """One line a snapshot."""
    heads = ("SNAPSHOT", "POSITION", "BOOKMARKS", "CREATED")
    rows = ((one["name"], one["position"], one["bookmarks"], _time(one)) for one in record["snapshots"])
    return table(heads, rows)


def bookmarks_table(record: Record) -> str:
    """One line a bookmark, its links as parent:weight."""
    heads = ("BOOKMARK", "POSITION", "BLOCK", "CHAIN", "SIGNAL", "FORCED", "LINKS")
    return table(
        heads,
        (
            (
                one["index"],
                one["position"],
                one["block"],
                one["chain"],
                f"{one['signal']:.3f}",
                "yes" if one["forced"] else "no",
                " ".join(f"{link['parent']}:{link['weight']:.2f}" for link in one["links"]) or "-",
            )
            for one in record["bookmarks"]
        ),
    )


def explanation_table(record: Record) -> str:
    """The recall in one line, then one line a block with its strongest vote or link, and one line a search."""
    head = (
        f"recall asked at position {record['asked_at']}: {record['candidates']} candidates, "
        f"mean {record['mean']:.4f}, std {record['std']:.4f}"
    )
    heads = ("BLOCK", "POSITIONS", "SCORE", "Z", "REACHED", "VIA", "VOTES", "STRONGEST VOTE OR LINKS")
    rows = [("chosen", one) for one in record["chosen"]] + [("below cut", one) for one in record["below_cut"]]
    lines = [head, table(heads, (_explained_row(*row) for row in rows)), f"finder: {record['finder_status']}"]
    return "\n".join([*lines, *(_search_line(one) for one in record["searches"])])


def table(heads: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Columns as wide as their widest cell, two blanks between."""
    cells = [tuple(heads), *(tuple(str(cell) for cell in row) for row in rows)]
    widths = [max(len(row[at]) for row in cells) for at in range(len(heads))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells
    )


def positions_of(block: int) -> list[int]:
    """First and last position of a block."""
    return [block * BLOCK_TOKENS, (block + 1) * BLOCK_TOKENS - 1]


def _time(one: Record) -> str:
    return datetime.fromtimestamp(one["created_unix_ms"] / 1000, UTC).isoformat(timespec="seconds")


def _ranges(ranges: Iterable[types_pb2.Range]) -> list[list[int]]:
    return [[one.first, one.count] for one in ranges]


def _block(one: memory_pb2.RecalledBlock) -> Record:
    return {
        "block": one.block,
        "positions": positions_of(one.block),
        "score": one.score,
        "z": one.z,
        "reached": memory_pb2.Reached.Name(one.reached).removeprefix("REACHED_").lower(),
        "via_block": one.via_block,
        "bookmark": one.bookmark,
        "path": list(one.path),
    }


def _explained(one: graph_pb2.ExplainedBlock) -> Record:
    votes = [{name: getattr(vote, name) for name in _VOTE_FIELDS.split()} for vote in one.votes]
    links = [{name: getattr(link, name) for name in _LINK_FIELDS.split()} for link in one.links]
    return {**_block(one.block), "votes": votes, "links": links}


def _search(one: graph_pb2.ExplainedSearch) -> Record:
    return {
        **{name: getattr(one, name) for name in _SEARCH_FIELDS.split()},
        "walked": list(one.walked),
        "checkpoints": [
            {"bookmark": own.bookmark, "level": own.level, "promise": own.promise} for own in one.checkpoints
        ],
        "refined": list(one.refined),
        "contents": list(one.contents),
        "landed": one.landed if one.HasField("landed") else None,
    }


def _search_line(one: Record) -> str:
    landed = "nowhere" if one["landed"] is None else f"at bookmark {one['landed']} ({one['similarity']:.3f})"
    return (
        f"search for token {one['position']}: walked {len(one['walked'])} bookmarks, looked at "
        f"{len(one['checkpoints']) + one['checkpoints_across']} checkpoints, compared "
        f"{len(one['refined']) + one['compared_across']} around them, read {len(one['contents'])} in the table of "
        f"contents, ended with {one['last_stage']} {landed}"
    )


def _explained_row(group: str, one: Record) -> tuple[object, ...]:
    strongest = "-"
    if one["links"]:
        shown = ", ".join(f"{link['source']}-{link['target']} ({link['weight']:.3f})" for link in one["links"][:4])
        strongest = f"{shown}{', ...' if len(one['links']) > 4 else ''}"
    elif one["votes"]:
        vote = one["votes"][0]
        strongest = (
            f"token {vote['position']} to bookmark {vote['bookmark']} "
            f"({vote['stream']}, {vote['similarity']:.3f}): {vote['contribution']:.4f}"
        )
    first, last = one["positions"]
    reached = one["reached"] if group == "chosen" else group
    scores = (f"{one['score']:.4f}", f"{one['z']:.2f}")
    return (
        one["block"],
        f"{first}-{last}",
        *scores,
        reached,
        one["via_block"],
        len(one["votes"]),
        strongest,
    )
