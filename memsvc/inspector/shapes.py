"""Records of the views: what a page shows and its JSON twin says.

Invariant: all of it is plain values, lists and records, so that it becomes JSON as it stands.
"""

from dataclasses import dataclass, field

# Nodes of one view at most.
NODES_MAX = 5_000
# Tokens of one passage at most.
PASSAGE_TOKENS_MAX = 1_024


@dataclass(frozen=True)
class SessionRow:
    """A session in figures; ranges are pairs of first and count."""

    name: str
    tokens: int
    tail_position: int
    bookmarks: int
    chains: int
    links: int
    blocks: int
    stored_bytes: int
    writer: str
    created_unix_ms: int
    finder_status: str
    snapshots: int
    fork_position: int
    parent_id: str
    id: str
    token_gaps: list[list[int]]
    block_gaps: list[list[int]]


@dataclass(frozen=True)
class SessionsView:
    """A page of sessions; `next_after` is empty on the last."""

    sessions: list[SessionRow]
    next_after: str


@dataclass(frozen=True)
class Bins:
    """A range of positions in equal parts, and what lies in each.

    Args:
        tokens: Of a part; the last may be shorter.
        bookmarks: How many begin there.
        heat: How often its blocks were recalled, over the recalls that are remembered.
    """

    first: int
    tokens: int
    bookmarks: list[int]
    heat: list[int]


@dataclass(frozen=True)
class NodeColumns:
    """Bookmarks by column.

    Args:
        height: 0 for a bookmark that is no checkpoint; else one more than its highest level as a checkpoint.
        children: How many of the session's later bookmarks link to it.
    """

    index: list[int] = field(default_factory=list)
    position: list[int] = field(default_factory=list)
    chain: list[int] = field(default_factory=list)
    height: list[int] = field(default_factory=list)
    children: list[int] = field(default_factory=list)


@dataclass(frozen=True)
class RecallRow:
    """A recall that is remembered."""

    asked_at: int
    blocks: list[int]
    best_z: float


@dataclass(frozen=True)
class Token:
    """One token: its text, if the session keeps any, else its id stands for it."""

    position: int
    id: int
    text: str | None


@dataclass(frozen=True)
class Passage:
    """Tokens of some positions; those of a gap are not there."""

    first: int
    count: int
    tokens: list[Token]


@dataclass(frozen=True)
class TimelineView:
    """A range of a session's positions.

    Args:
        whole: Of the whole session.
        bins: Of the range.
        least_height: Nodes of less height are left out, since they would be too many.
        checkpoints_every: Bookmarks of a chain from one checkpoint to the next, by height from 1 on.
        passage: The range's tokens; None where they are more than `PASSAGE_TOKENS_MAX`.
    """

    session: SessionRow
    first: int
    count: int
    whole: Bins
    bins: Bins
    nodes: NodeColumns
    least_height: int
    checkpoints_every: list[int]
    recalls: list[RecallRow]
    passage: Passage | None


@dataclass(frozen=True)
class LinkRow:
    """A link, by the bookmark at its other end."""

    index: int
    position: int
    chain: int
    weight: float
    passage: Passage


@dataclass(frozen=True)
class BookmarkView:
    """One bookmark: where it stands, what it links to, and what links to it, strongest first."""

    session: SessionRow
    index: int
    position: int
    block: int
    chain: int
    signal: float
    forced: bool
    passage: Passage
    parents: list[LinkRow]
    children: list[LinkRow]
    recalled_at: list[int]


@dataclass(frozen=True)
class EdgeColumns:
    """Links by column; ends are indices of bookmarks, the later one first."""

    source: list[int]
    target: list[int]
    weight: list[float]


@dataclass(frozen=True)
class GraphView:
    """Bookmarks around some, with the links between them.

    Args:
        x, y: A place for each node.
        label: How each chain begins, by chain, as text or ids; of the largest chains.
        full: Whether there may be more than `most`, which is as many as were asked for.
    """

    session: SessionRow
    seeds: list[int]
    hops: int
    weight_min: float
    nodes: NodeColumns
    x: list[float]
    y: list[float]
    edges: EdgeColumns
    label: dict[str, str]
    full: bool
    most: int


@dataclass(frozen=True)
class VoteRow:
    """One token's vote for a block, by the bookmark that it matched."""

    position: int
    token: Token | None
    bookmark: int
    bookmark_position: int
    stream: str
    similarity: float
    cut: float
    contribution: float


@dataclass(frozen=True)
class FollowedRow:
    """A link that a hop followed."""

    source: int
    target: int
    weight: float
    worth: float


@dataclass(frozen=True)
class WhyBlock:
    """A block that a recall chose, or that lay just below the cut.

    Args:
        reached: trail, neighbour, fill or hop; "below" if it was not chosen.
        path: Bookmarks of a hop's path.
    """

    block: int
    first: int
    score: float
    z: float
    reached: str
    via_block: int
    bookmark: int
    path: list[int]
    votes: list[VoteRow]
    links: list[FollowedRow]
    passage: Passage


@dataclass(frozen=True)
class CheckpointRow:
    """A checkpoint that a search looked at."""

    bookmark: int
    level: int
    promise: float


@dataclass(frozen=True)
class SearchRow:
    """How the walk went for one token; `landed` is None where it found nothing."""

    position: int
    walked: list[int]
    checkpoints: list[CheckpointRow]
    refined: list[int]
    checkpoints_across: int
    compared_across: int
    contents: list[int]
    last_stage: str
    landed: int | None
    similarity: float


@dataclass(frozen=True)
class WhyView:
    """A recall, and why it chose what it chose; `asked_at` is None where no recall is remembered."""

    session: SessionRow
    recalls: list[RecallRow]
    asked_at: int | None
    asked: Passage | None
    mean: float
    std: float
    candidates: int
    chosen: list[WhyBlock]
    below: list[WhyBlock]
    searches: list[SearchRow]
    finder_status: str


@dataclass(frozen=True)
class LiveView:
    """A session at this moment: newest bookmarks and recalls first."""

    session: SessionRow
    unix_ms: int
    newest: list[LinkRow]
    recalls: list[RecallRow]
    bins: Bins


@dataclass(frozen=True)
class Hit:
    """A place that a search found, and the bookmark at or before it; None if there is none."""

    position: int
    bookmark: int | None
    passage: Passage


@dataclass(frozen=True)
class SearchView:
    """What a search found; `problem` says what was expected where a query means nothing."""

    session: SessionRow
    query: str
    hits: list[Hit]
    more: bool
    problem: str


@dataclass(frozen=True)
class Difference:
    """A field in which two sessions differ."""

    name: str
    left: str
    right: str


@dataclass(frozen=True)
class CompareView:
    """Two sessions beside each other, on one axis of positions.

    Args:
        shared_tokens: From the start on, how many token ids are the same; of what is compared at most.
        names: Sessions to choose from.
    """

    left: SessionRow | None
    right: SessionRow | None
    left_bins: Bins | None
    right_bins: Bins | None
    differences: list[Difference]
    shared_tokens: int
    compared_tokens: int
    names: list[str]
