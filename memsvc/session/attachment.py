"""A worker's place at a session: the writer's, or a view with a cut and a private trail.

Invariants:
    A view sees the bookmarks and blocks of its cut, whatever the writer did since, and changes nothing.
    A writer that is lost keeps its epoch until another one opens.
"""

from typing import TYPE_CHECKING

from memsvc.blocks import BlockRef
from memsvc.geometry import BLOCK_TOKENS
from memsvc.session.state import Cut, SessionState, append_to_trail
from memsvc.session.steps import TokenStep

if TYPE_CHECKING:
    from memsvc.session.session import Session


class View:
    """A cut of a session, and the tokens that one reader read after it.

    Args:
        cut: Of the state, its newest or an earlier one.
    """

    def __init__(self, state: SessionState, cut: Cut) -> None:
        self.state = state
        self.cut = cut
        self.trail = self.cut.trail.copy()
        self.position = self.cut.position

    def read(self, step: TokenStep) -> None:
        """Tokens that follow; they vote in this view's recalls only."""
        # Without a bookmark there may be no centre, and is nothing that could be voted for.
        if self.cut.bookmarks:
            append_to_trail(self.trail, self.state.vectors.convert(step.first_position, step.embeddings))
        self.position = step.end

    def block(self, block: int) -> BlockRef | None:
        """Where a block of the cut is stored, if it is."""
        end = self.cut.position // BLOCK_TOKENS
        if block < end:
            return self.state.blocks.get(block)
        return self.cut.partial if block == end else None


class Attachment:
    """Who may do what at a session.

    Attributes:
        id: Made by the client.
        worker: Whose it is.
        session: Where it is.
        epoch: Of the writer; 0 for a view.
        view: None for the writer.
        applied_seq: Of the newest step that was applied.
        lost: The worker's stream ended and did not come back.
    """

    def __init__(self, id: str, worker: str, session: "Session", epoch: int, view: View | None = None) -> None:
        self.id = id
        self.worker = worker
        self.session = session
        self.epoch = epoch
        self.view = view
        self.applied_seq = 0
        self.lost = False

    @property
    def is_view(self) -> bool:
        """Whether it only reads."""
        return self.view is not None
