"""What a step offers beside its signals, and what turns that into a signal: a measure.

    offer     positions, client signals, ids, vectors, best earlier similarity        of consecutive tokens
    measure   offer -> one number a token                                            written to the log
    policy    signals, measured ones included -> decisions                           see `memsvc.policy.base`

A measure never runs in a replay: its numbers come from the log, and it only recollects what it needs to go on.

Invariants:
    What a measure gives for a token depends on the tokens up to it, and on bookmarks that were settled before it.
    It does not depend on how tokens were cut into offers.
Must not know: sessions, logs, finders.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from memsvc.policy.base import Signals

Float32Array = npt.NDArray[np.float32]
Int16Array = npt.NDArray[np.int16]
Uint32Array = npt.NDArray[np.uint32]
# Numbers that measures gave, float32 [tokens fed], by signal.
Measured = Mapping[str, Float32Array]


@dataclass(frozen=True, slots=True)
class Needs:
    """What a measure looks at.

    Args:
        ids: Token ids: a step without them is refused.
        vectors: Lattice vectors of the first stream: decisions wait until the centre is frozen.
        vectors_back: Newest vectors that it must be given again to go on after a replay.
        earlier: The best similarity to an earlier bookmark.
    """

    ids: bool = False
    vectors: bool = False
    vectors_back: int = 0
    earlier: bool = False


@dataclass(frozen=True, slots=True)
class Offer:
    """What there is to look at of `count` consecutive tokens.

    Args:
        signals: As the client sent them, float32 [count] by name.
        ids: uint32 [count], or [0] if they were not sent.
        vectors: Lattice vectors of the first stream, int16 [count, dims]; [0, 0] for a policy that needs none. In a
            replay some may be missing, but none of the newest `vectors_back`.
        best_earlier: Similarity of each token to the bookmark that it resembles most among the earlier ones, float32
            [count], computed when first asked for; see `memsvc.policy.earlier`. Not to be called in a replay.
    """

    first_position: int
    count: int
    signals: Signals
    ids: Uint32Array
    vectors: Int16Array
    best_earlier: Callable[[], Float32Array]


class Measure(Protocol):
    """Makes one signal of what steps offer. Given each token once, in order."""

    signal: str
    """Name of the signal that it makes."""
    needs: Needs
    """What an offer must hold."""

    def measure(self, offer: Offer) -> Float32Array:
        """The signal of these tokens, [count], finite."""

    def recollect(self, offer: Offer) -> None:
        """Takes in tokens that were measured before, without measuring them again."""

    def skip(self) -> None:
        """Tokens were lost: what follows has nothing to do with what came just before."""


def needs_of(measures: tuple[Measure, ...]) -> Needs:
    """What all of them need together."""
    needs = [measure.needs for measure in measures]
    return Needs(
        ids=any(own.ids for own in needs),
        vectors=any(own.vectors for own in needs),
        vectors_back=max((own.vectors_back for own in needs), default=0),
        earlier=any(own.earlier for own in needs),
    )
