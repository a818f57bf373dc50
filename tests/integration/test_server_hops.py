"""Recalls that follow links, over the wire: what they bring, of what they are made, and what they never bring.

The text is filler but for three passages: block 2 names A, B and C; block 5 names B again, block 8 C. Every token is a
bookmark, so a bookmark's index is its position.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import pytest

from memsvc.cli import main
from protos import codec
from protos.memsvc.v1 import graph_pb2, memory_pb2, session_pb2, types_pb2
from tests.integration.server_process import (
    DIMS,
    TIMEOUT_S,
    ServerProcess,
    Stubs,
    Worker,
    block_data,
    connected,
    created,
    put,
    served,
    spec,
    step,
)

A, B, C = (np.eye(DIMS, dtype=np.float32)[at] for at in (2, 3, 4))
NAMES = {138: A, 142: B, 146: C, 330: B, 540: C}
TOKENS = 640


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with served(tmp_path_factory.mktemp("node")) as server:
        yield server


@pytest.fixture(scope="module")
def stubs(server: ServerProcess) -> Iterator[Stubs]:
    with connected(server.address) as stubs:
        yield stubs


def _rows(first: int, count: int) -> np.ndarray:
    """Two fillers in turns, opposite about their mean; and the names."""
    rows = np.zeros((count, DIMS), dtype=np.float32)
    rows[:, 0] = 1.0
    rows[:, 1] = np.where(np.arange(first, first + count) % 2, 1.0, -1.0)
    for position, name in NAMES.items():
        if first <= position < first + count:
            rows[position - first] = rows[position - first] * [1.0, *[0.0] * (DIMS - 1)] + name
    return rows


class Text:
    """A session that read the text up to some token, through one writer."""

    def __init__(self, stubs: Stubs, name: str) -> None:
        created(stubs, name)
        self.stubs, self.name = stubs, name
        self.worker = Worker(stubs, name)
        assert self.worker.receive().WhichOneof("message") == "welcome"
        self.epoch = self.worker.open(name, name).epoch
        self.seq, self.position = 0, 0

    def read(self, end: int, blocks: Sequence[int]) -> None:
        """Reads on, and puts these blocks."""
        while self.position < end:
            self.seq += 1
            rows = codec.encode(_rows(self.position, 64))
            self.worker.steps(step(self.name, self.epoch, self.seq, self.position, embeddings={"probe": rows}))
            assert self.worker.receive().ack.seq == self.seq
            self.position += 64
        requests = (put(self.name, self.epoch, block, block_data(block)) for block in blocks)
        for answer in self.stubs.blocks.PutBlocks(requests, timeout=TIMEOUT_S):
            assert answer.reason == "", answer.message

    def ask(self, hops: memory_pb2.HopRequest | None, attachment: str = "", epoch: int = 0) -> memory_pb2.Recall:
        """Asks for A; as the writer, or as a view that asks for the first time."""
        if not attachment:
            self.seq += 1
        wanted = memory_pb2.RecallRequest(top_blocks=2, budget_blocks=2, deadline_ms=20_000, hops=hops)
        asked = step(
            attachment or self.name,
            epoch if attachment else self.epoch,
            1 if attachment else self.seq,
            self.position,
            32,
            embeddings={"probe": codec.encode(np.tile(A + np.eye(DIMS, dtype=np.float32)[0], (32, 1)))},
            recall=wanted,
        )
        self.worker.steps(asked)
        self.position += 0 if attachment else 32
        while (answer := self.worker.receive()).WhichOneof("message") != "recall":
            assert answer.WhichOneof("message") == "ack", answer
        return answer.recall


def _hops(blocks: int, half_life_tokens: int = 0) -> memory_pb2.HopRequest:
    return memory_pb2.HopRequest(hops=1, blocks=blocks, half_life_tokens=half_life_tokens)


def test_a_hop_brings_what_the_question_does_not_name_within_the_same_budget(stubs: Stubs) -> None:
    """Proves that the newest passage about whom A's passage names comes in a fill's place, with path and links."""
    text = Text(stubs, "lodger")
    text.read(TOKENS, range(10))
    off = text.ask(None)
    assert [(block.block, block.reached) for block in off.blocks] == [
        (2, memory_pb2.REACHED_TRAIL),
        (8, memory_pb2.REACHED_FILL),
    ]
    on = text.ask(_hops(1))
    assert len(on.blocks) == len(off.blocks)
    hit, hop = on.blocks
    assert (hit.block, hit.reached) == (2, memory_pb2.REACHED_TRAIL)
    assert (hop.block, hop.reached, hop.via_block) == (8, memory_pb2.REACHED_HOP, 2)
    assert (list(hop.path), hop.bookmark) == ([146, 540], 540)
    assert 0 < hop.score <= hit.score
    text.worker.leave()


def test_links_that_are_old_count_less_where_that_is_asked_for(stubs: Stubs) -> None:
    """Proves that a half-life of 210 tokens halves what a link made 210 tokens earlier brings."""
    text = Text(stubs, "old")
    text.read(TOKENS, range(10))
    asked = memory_pb2.RecallRequest(top_blocks=2, budget_blocks=3)
    scores = []
    for half_life_tokens in (0, 210):
        asked.hops.CopyFrom(_hops(2, half_life_tokens))
        recall = _asked(text, asked)
        scores.append({block.block: block.score for block in recall.blocks if block.reached == memory_pb2.REACHED_HOP})
    assert scores[0][5] == pytest.approx(scores[0][8])
    # Weights are float32.
    assert scores[1][5] == pytest.approx(scores[1][8] / 2, rel=1e-6)
    text.worker.leave()


def test_a_view_follows_the_links_of_its_cut_only(stubs: Stubs) -> None:
    """Proves that a passage read after the view's tail is not reached, and one before it is."""
    text = Text(stubs, "view")
    text.read(448, range(7))
    tail = session_pb2.Tail(version=1, position=448, last_id=7)
    request = session_pb2.SaveTailRequest(attachment="view", epoch=text.epoch, tail=tail)
    stubs.sessions.SaveTail(request, timeout=TIMEOUT_S)
    text.worker.open("view", "looker", mode=session_pb2.OPEN_MODE_VIEW)
    text.position = 448
    asked_as_view = text.ask(_hops(2), attachment="looker")
    assert [(block.block, block.reached) for block in asked_as_view.blocks] == [
        (2, memory_pb2.REACHED_TRAIL),
        (5, memory_pb2.REACHED_HOP),
    ]
    text.read(TOKENS, range(7, 10))
    text.worker.leave()


def test_a_block_that_is_not_stored_or_resident_is_not_reached(stubs: Stubs) -> None:
    """Proves that a passage whose block was not put gives way to another, and so does one that is resident."""
    text = Text(stubs, "unput")
    text.read(TOKENS, [block for block in range(10) if block != 8])
    on = text.ask(_hops(1))
    assert [(block.block, block.reached) for block in on.blocks][1] == (5, memory_pb2.REACHED_HOP)
    asked = memory_pb2.RecallRequest(top_blocks=2, budget_blocks=2, hops=_hops(1))
    recall = _asked(text, asked, resident=types_pb2.Range(first=320, count=320))
    assert [block.block for block in recall.blocks if block.reached == memory_pb2.REACHED_HOP] == []
    text.worker.leave()


def test_a_hop_is_explained_with_its_links(
    stubs: Stubs, server: ServerProcess, capsys: pytest.CaptureFixture[str]
) -> None:
    """Proves that Explain gives the links that were followed, and the command line shows the way."""
    text = Text(stubs, "explained")
    text.read(TOKENS, range(10))
    recall = text.ask(_hops(1))
    explained = stubs.graph.Explain(graph_pb2.ExplainRequest(session="explained"), timeout=TIMEOUT_S)
    assert explained.recall == recall
    links = [[(link.source, link.target) for link in own.links] for own in explained.chosen]
    assert links == [[], [(146, 540)]]
    (link,) = explained.chosen[1].links
    # A list that is not full counts from the least similarity of a link.
    assert link.worth == pytest.approx(link.weight - spec().search.link_similarity_min, rel=1e-6)
    assert main(["explain", "--memory", server.address, "--session", "explained"]) == 0
    assert "146-540" in capsys.readouterr().out
    text.worker.leave()


def _asked(text: Text, asked: memory_pb2.RecallRequest, **changed: object) -> memory_pb2.Recall:
    """Asks for A as `asked` says, as the writer."""
    text.seq += 1
    rows = codec.encode(np.tile(A + np.eye(DIMS, dtype=np.float32)[0], (32, 1)))
    asked.deadline_ms = 20_000
    text.worker.steps(
        step(text.name, text.epoch, text.seq, text.position, 32, embeddings={"probe": rows}, recall=asked, **changed)
    )
    text.position += 32
    while (answer := text.worker.receive()).WhichOneof("message") != "recall":
        assert answer.WhichOneof("message") == "ack", answer
    return answer.recall
