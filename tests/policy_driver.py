"""What tests of policies share: texts as lattice vectors, ids and signals, and a decider that is fed with them."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache

import numpy as np

from memsvc.lattice import to_lattice
from memsvc.session.deciding import Decider, Settled
from memsvc.session.steps import TokenStep
from memsvc.session.vectors import RECENT_TOKENS, TokenRows
from protos.memsvc.v1 import types_pb2 as wire

DIMS = 24
KINDS = {name.removeprefix("POLICY_KIND_").lower(): number for name, number in wire.PolicyKind.items() if number}
# The policies whose score is measured or combined by the server.
MEASURED = tuple(name for name in KINDS if name not in ("every", "fixed", "surprisal"))


def policy_spec(name: str, coverage: float = 0.1, compared_bookmarks: int = 0) -> wire.PolicySpec:
    """A policy's spec; the hybrid weighs surprisal 1 and novelty 2."""
    spec = wire.PolicySpec(kind=KINDS[name], coverage=coverage, compared_bookmarks=compared_bookmarks)
    if name == "hybrid":
        spec.weights.add(kind=wire.POLICY_KIND_SURPRISAL, weight=1.0)
        spec.weights.add(kind=wire.POLICY_KIND_NOVELTY, weight=2.0)
    return spec


def decider_of(spec: wire.PolicySpec, dims: int = DIMS) -> Decider:
    """A decider of one stream."""
    mark = wire.Fingerprint(streams=[wire.StreamSpec(name="s0", dims=dims)])
    return Decider(wire.SessionSpec(fingerprint=mark, policy=spec))


@dataclass(frozen=True)
class Passage:
    """Tokens 0 and on: lattice vectors int16 [n, DIMS], ids uint32 [n], and signals float32 [n]."""

    rows: np.ndarray
    ids: np.ndarray
    signals: dict[str, np.ndarray]

    @property
    def tokens(self) -> int:
        """How many there are."""
        return len(self.rows)

    def step(self, first: int, end: int, gap_tokens: int = 0) -> TokenStep:
        """Tokens `first` to `end` as a step."""
        own = slice(first, end)
        signals = {name: values[own] for name, values in self.signals.items()}
        return TokenStep(first, end - first, gap_tokens, self.ids[own], signals, (), {}, {})

    def known(self, first: int, end: int) -> TokenRows:
        """Vectors of these tokens and of those that a decision may still name."""
        first = max(0, first - RECENT_TOKENS)
        return TokenRows(np.arange(first, end), {"s0": self.rows[first:end]})


@cache
def passage(shape: str, tokens: int, seed: int = 3) -> Passage:
    """A made-up text.

    `noise`: vectors of no structure. `topics`: 40 topics that come back, each for 50 to 400 tokens, with sentences in
    them. `drift`: topics, every one new. `same`: one sentence of 20 tokens for ever.
    """
    random = np.random.default_rng(seed)
    noise = random.standard_normal((tokens, DIMS))
    if shape == "noise":
        values = noise
    elif shape == "same":
        values = np.tile(random.standard_normal((20, DIMS)), (tokens // 20 + 1, 1))[:tokens]
    else:
        lengths = random.integers(50, 400, tokens // 50 + 1)
        topic = np.repeat(np.arange(len(lengths)), lengths)[:tokens]
        if shape == "topics":
            topic = random.integers(0, 40, len(lengths))[topic]
        centres = 1.5 * random.standard_normal((max(40, len(lengths)), DIMS))
        sentence = random.standard_normal((tokens // 15 + 1, DIMS))[np.arange(tokens) // 15]
        values = centres[topic] + 0.5 * sentence + 0.7 * noise
    ids = np.minimum(random.zipf(1.3, tokens), 50_000).astype(np.uint32)
    signals = {
        "surprisal": random.gamma(2.0, 1.5, tokens).astype(np.float32),
        "attention_mass": random.gamma(0.5, 1.0, tokens).astype(np.float32),
    }
    return Passage(to_lattice(values.astype(np.float32), np.zeros(DIMS)), ids, signals)


def fed(spec: wire.PolicySpec, text: Passage, ends: Iterable[int]) -> list[Settled]:
    """What a policy settles step by step, for steps that end there."""
    decider, first, settled = decider_of(spec), 0, []
    for end in ends:
        decider.take(text.step(first, end))
        settled.append(decider.settle(text.known(first, end)))
        first = end
    return settled


def positions_of(settled: Iterable[Settled]) -> np.ndarray:
    """All positions decided, in order."""
    return np.concatenate([own.decided.positions for own in settled])
