"""What every policy is: a state machine over signals that names tokens as bookmarks, in order of position.

A signal is sent by the client, or made by one of the policy's measures (`memsvc.policy.offer`) of what a step offers.

Invariants:
    Decisions depend on the sequence of signals and gaps alone, never on how it was split into calls.
    Positions ascend over all decisions of a policy. No position is decided twice.
    A decision is never more than LOOKBACK_TOKENS older than the newest token fed.
    Each block whose 64 tokens were all fed gets a bookmark, at the latest when its last token is decided.

Must not know: embeddings, searches, sessions.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
import numpy.typing as npt

from memsvc.errors import InvalidRequest
from memsvc.geometry import BLOCK_TOKENS

if TYPE_CHECKING:
    from memsvc.policy.offer import Measure

# Tokens that centred smoothing waits for after the one it decides.
SMOOTHING_DELAY_TOKENS = 2
# How far behind the newest token fed a decision may lie: a forced one may fall on its block's first token.
LOOKBACK_TOKENS = BLOCK_TOKENS - 1 + SMOOTHING_DELAY_TOKENS

Signals = Mapping[str, npt.NDArray[np.float32]]
Int64Array = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Decision:
    """The token at `position` becomes a bookmark.

    Attributes:
        signal: What the policy looked at, in its own unit (surprisal: smoothed nats); 0 if it looks at nothing.
        forced: Made only because its block would have had none.
    """

    position: int
    signal: float
    forced: bool


class Policy(Protocol):
    """Decides which tokens become bookmarks. Fed each token of a session once, in order, from position 0."""

    signals: tuple[str, ...]
    """Names of the signals that the client must send with each step."""
    measures: "tuple[Measure, ...]"
    """What makes the other signals that each call to `decide` must carry."""

    def decide(
        self, first_position: int, count: int, signals: Signals, logged: Int64Array | None = None
    ) -> list[Decision]:
        """Feeds the next `count` tokens; returns what they settle, which may lie up to LOOKBACK_TOKENS back.

        Args:
            signals: By name, [count] each, finite; those of `signals` and of `measures`.
            logged: In a replay, positions that a log says were decided here, ascending, without the forced ones.
                Decisions are the same whatever it says; they take less time where it is right.

        Raises:
            InvalidRequest: A signal is missing or not [count]; nothing was fed.
        """

    def skip(self, position: int) -> list[Decision]:
        """Declares the tokens from the next one to `position`, exclusive, lost; `decide` goes on at `position`.

        Settles what was still waiting for later tokens and returns it: those decisions lie before the gap. Nothing is
        smoothed across the gap, and a block that the gap touches gets no forced bookmark.
        """


def signal_of(signals: Signals, name: str, count: int) -> npt.NDArray[np.float32]:
    """The named signal, [count]. Raises InvalidRequest where it is missing or of another shape."""
    values = signals.get(name)
    if values is None:
        raise InvalidRequest(f"expected signal {name!r} with each step, got {sorted(signals) or 'none'}")
    if values.shape != (count,):
        raise InvalidRequest(f"expected signal {name!r} of shape [{count}], got {list(values.shape)}")
    return values
