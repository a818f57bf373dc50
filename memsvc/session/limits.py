"""How much one node takes on for its sessions."""

from dataclasses import dataclass


@dataclass(frozen=True)
class SessionLimits:
    """One past any of these is a typed error, if nothing else is said.

    Args:
        sessions_max: Sessions of the node.
        step_tokens_max: Tokens of one step.
        recalls_remembered: Newest recalls of a session that `explain` can still answer for; older ones are forgotten.
        block_bytes_max: Bytes of one block; larger ones are refused when the session is made.
        stream_dims_max: Dimensions of one embedding.
        tokens_max: Positions of one session.
        views_max: Views of one session that are open at once.
        snapshots_max: Snapshots of one session.
        put_ahead_tokens_max: How far past the writer's position a block may end: blocks and steps come on channels of
            their own, so a block may overtake the step that its tokens are in.
        recall_deadline_ms_max: Longest that a recall is waited for, whatever longer deadline a step names, or none.
        sessions_open_max: Sessions in memory beside those that somebody is attached to; others are read again from
            their logs when they are asked for.
    """

    sessions_max: int
    step_tokens_max: int
    recalls_remembered: int
    block_bytes_max: int
    stream_dims_max: int
    tokens_max: int = 1 << 32
    views_max: int = 256
    snapshots_max: int = 256
    put_ahead_tokens_max: int = 1 << 16
    recall_deadline_ms_max: int = 600_000
    sessions_open_max: int = 64
