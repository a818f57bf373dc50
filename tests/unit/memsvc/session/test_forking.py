"""Forks: what they share with their parent, and what neither sees of the other."""

import threading
from pathlib import Path

import pytest

from memsvc.errors import (
    BlockNotFound,
    InvalidRequest,
    LimitExceeded,
    SessionExists,
    SessionNotFound,
    SnapshotNotFound,
    StaleEpoch,
    StorageFailed,
)
from memsvc.retention.compact import compact
from memsvc.session.records import ForgottenRecord, RecordKind, pack_forgotten
from memsvc.storage import SYSTEM
from protos.memsvc.v1 import types_pb2
from tests.session_driver import BLOCK_BYTES, LIMITS, Node, Reader, Text, block_bytes, memory_of, session_spec

TEXT, OTHER = Text(900), Text(900, seed=2)


def _cut_book(node: Node, position: int = 300) -> Reader:
    """The writer of a session with a tail at a position that is no end of a block, and some steps past it."""
    writer = node.open()
    writer.read(TEXT, [100, position])
    writer.save_tail()
    return writer


def _folder(node: Node, name: str) -> Path:
    entry = node.manifest.get(name)
    assert entry is not None
    return node.data / "sessions" / entry.id


def test_a_fork_is_its_parent_as_of_the_newest_tail(node: Node) -> None:
    """Proves that memory is equal bit for bit, without the parent's steps since, and that info tells whence."""
    writer = _cut_book(node)
    memory, info = memory_of(writer.session), writer.session.info()
    writer.read(TEXT, [450])
    fork, created = node.sessions.fork("book", "", "fork")
    assert created
    assert memory_of(node.sessions.get("fork")) == memory
    assert (fork.parent_id, fork.fork_position, fork.epoch, fork.writer) == (info.id, 300, 0, "")
    assert (fork.tokens, fork.bookmarks, fork.blocks) == (info.tokens, info.bookmarks, info.blocks)
    point = node.sessions.get("fork").core.lineage.fork
    assert point is not None
    records = writer.session.core.files.reread()
    assert records[point.sequence - 1].kind == RecordKind.TAIL
    again = node.crash()
    assert memory_of(again.sessions.get("fork")) == memory
    assert again.sessions.get("fork").info() == fork
    again.close()


def test_a_fork_and_its_parent_go_their_own_ways(node: Node) -> None:
    """Proves that both write on from the cut, and that each has its own blocks and tokens, after a restart too."""
    writer = _cut_book(node)
    node.sessions.fork("book", "", "fork")
    twin = node.open("two", session="fork")
    assert (twin.position, twin.opened.tail.position, twin.opened.epoch) == (300, 300, 1)
    writer.read(TEXT, [600])
    twin.read(OTHER, [600])
    for own, text in ((writer, TEXT), (twin, OTHER)):
        ids = own.session.read_tokens(types_pb2.Range(first=300, count=300)).ids
        assert ids == text.ids[300:600].tobytes()
    twin.put_one(9, 40, block_bytes(9, 7))
    with pytest.raises(BlockNotFound):
        writer.session.read_block(writer.attachment, 9)
    memories = {name: memory_of(node.sessions.get(name)) for name in ("book", "fork")}
    assert memories["book"]["bookmarks"] != memories["fork"]["bookmarks"]
    again = node.crash()
    assert {name: memory_of(again.sessions.get(name)) for name in ("book", "fork")} == memories
    again.close()


def test_a_fork_reads_on_as_its_parent_would(node: Node) -> None:
    """Proves that the same tokens give the same bookmarks, links and recall in a fork as in its parent."""
    writer = _cut_book(node)
    node.sessions.fork("book", "", "fork")
    twin = node.open("two", session="fork")
    answers = [own.ask(OTHER, 500) for own in (writer, twin)]
    assert answers[0].blocks == answers[1].blocks
    assert (answers[0].mean, answers[0].std) == (answers[1].mean, answers[1].std)
    memories = [memory_of(own.session) for own in (writer, twin)]
    assert memories[0] == memories[1]


def test_no_byte_of_a_block_is_copied(node: Node) -> None:
    """Proves that the fork's files of shared blocks are the parent's, that its own come later, and both are read."""
    writer = _cut_book(node)
    node.sessions.fork("book", "", "fork")
    parent, fork = _folder(node, "book"), _folder(node, "fork")
    assert (parent / "blocks-000001.seg").samefile(fork / "blocks-000001.seg")
    assert not (fork / "blocks-000002.seg").exists()
    writer.read(TEXT, [600])
    twin = node.open("two", session="fork")
    twin.read(OTHER, [420])
    assert not (parent / "blocks-000002.seg").exists()
    for block in range(4):
        assert twin.session.read_block(twin.attachment, block)[0] == block_bytes(block)
    assert (fork / "blocks-000002.seg").stat().st_size > 2 * BLOCK_BYTES


def test_a_fork_at_a_snapshot_is_the_session_as_of_then(node: Node) -> None:
    """Proves that a fork of an old cut has the memory of that time, partial block included, and no snapshot."""
    writer = _cut_book(node)
    memory = memory_of(writer.session)
    node.sessions.create_snapshot("book", "then")
    writer.read(TEXT, [700])
    writer.save_tail()
    fork, _ = node.sessions.fork("book", "then", "fork")
    assert (fork.fork_position, fork.snapshots) == (300, 0)
    assert memory_of(node.sessions.get("fork")) == memory
    twin = node.open("two", session="fork")
    assert twin.session.read_block(twin.attachment, 4)[2] == 300 % 64
    twin.send(OTHER, 400)
    twin.put([4, 5], salt=5)
    assert twin.session.read_block(twin.attachment, 4)[0] == block_bytes(4, 5)
    assert writer.session.read_block(writer.attachment, 4)[0] == block_bytes(4)


def test_forks_of_forks_share_what_both_had(node: Node) -> None:
    """Proves that a chain of forks reads the blocks of each ancestor, and that a file is never taken for its own."""
    _cut_book(node)
    for at, (parent, name) in enumerate((("book", "f1"), ("f1", "f2"), ("f2", "f3"))):
        node.sessions.fork(parent, "", name)
        own = node.open(name, session=name)
        own.read(Text(900, seed=3 + at), [own.position + 100])
        own.save_tail()
        own.put_one(own.position // 64, 63, block_bytes(60 + at))
    again = node.crash()
    last = again.open("v", view=True, session="f3")
    assert last.position == 600
    for block in range(9):
        assert last.session.read_block(last.attachment, block)[0] == block_bytes(block)
    segments = [path.stat().st_nlink for path in sorted(_folder(node, "f3").glob("blocks-*.seg"))]
    assert segments == [4, 3, 2, 1]
    again.close()


def test_what_is_void_stays_behind(node: Node) -> None:
    """Proves that what a lost writer wrote past the tail is not in a fork, nor is who wrote."""
    writer = _cut_book(node)
    writer.read(TEXT, [500])
    node.sessions.worker_gone("w-one")
    node.sessions.fork("book", "", "fork")
    assert node.sessions.get("fork").info().tokens == 300
    log = (_folder(node, "fork") / "log").read_bytes()
    assert b"w-one" not in log
    request = node.request("one", resume_epoch=writer.attachment.epoch, session="fork")
    again = node.crash()
    with pytest.raises(StaleEpoch):
        again.sessions.open(request)
    assert again.open("two", session="fork").opened.epoch == 1
    again.close()


def test_a_block_that_was_put_ahead_of_the_cut_stays_behind(node: Node) -> None:
    """Proves that a fork neither counts nor has a block whose tokens come after its cut, though it was put before."""
    writer = node.open()
    writer.read(TEXT, [100])
    writer.put([2])
    writer.save_tail()
    assert writer.session.info().blocks == 2
    fork, _ = node.sessions.fork("book", "", "fork")
    assert (fork.fork_position, fork.blocks) == (100, 1)
    assert node.crash().sessions.get("fork").info().blocks == 1


def test_an_empty_session_has_an_empty_fork(node: Node) -> None:
    """Proves that a session without a tail forks at position 0, and that both can be written then."""
    writer = node.open()
    writer.read(TEXT, [150])
    fork, _ = node.sessions.fork("book", "", "fork")
    assert (fork.tokens, fork.fork_position, fork.blocks) == (0, 0, 0)
    twin = node.open("two", session="fork")
    twin.read(OTHER, [200])
    twin.save_tail()
    assert memory_of(node.crash().sessions.get("fork")) == memory_of(twin.session)


def test_forking_again_finds_the_same_fork(node: Node) -> None:
    """Proves that a repeated request is answered alike, and that a name of anything else is refused."""
    writer = _cut_book(node)
    node.sessions.create_snapshot("book", "then")
    writer.read(TEXT, [400])
    writer.save_tail()
    node.sessions.create_snapshot("book", "later")
    info, created = node.sessions.fork("book", "then", "fork")
    assert created
    for snapshot in ("then", ""):
        assert node.sessions.fork("book", snapshot, "fork") == (info, False)
    with pytest.raises(SessionExists, match=r"at position 400, got 'fork', a fork of .* at position 300"):
        node.sessions.fork("book", "later", "fork")
    node.create(name="other")
    with pytest.raises(SessionExists, match="'other', no fork"):
        node.sessions.fork("book", "", "other")
    with pytest.raises(SessionExists, match="'book', no fork"):
        node.sessions.fork("book", "", "book")


def test_what_cannot_be_forked_is_told_and_leaves_nothing(node: Node) -> None:
    """Proves that an unknown parent or snapshot, a bad name and a full node are typed errors, without a folder left."""
    _cut_book(node)
    folders = sorted((node.data / "sessions").iterdir())
    with pytest.raises(SessionNotFound):
        node.sessions.fork("missing", "", "fork")
    with pytest.raises(SnapshotNotFound):
        node.sessions.fork("book", "missing", "fork")
    with pytest.raises(InvalidRequest):
        node.sessions.fork("book", "", "-fork")
    assert sorted((node.data / "sessions").iterdir()) == folders
    for at in range(LIMITS.sessions_max - 1):
        node.create(name=f"n{at}")
    with pytest.raises(LimitExceeded):
        node.sessions.fork("book", "", "fork")


def test_a_disk_without_hard_links_is_told(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    """Proves that a refused link is a typed error, that nothing is left, and that the parent goes on."""
    writer = _cut_book(node)

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    with monkeypatch.context() as patch:
        patch.setattr("os.link", refuse)
        with pytest.raises(StorageFailed, match="share"):
            node.sessions.fork("book", "", "fork")
    assert len(list((node.data / "sessions").iterdir())) == 1
    writer.read(TEXT, [400])
    node.sessions.fork("book", "", "fork")


def test_saved_shards_are_shared_and_not_built_again(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    """Proves that a fork has its parent's full graphs as they are, so that opening it builds none."""
    from tests.property.small_parts import make_parts_small

    make_parts_small(monkeypatch)
    spec = session_spec("every", streams=1)
    spec.search.finder = types_pb2.FINDER_KIND_HNSW
    spec.search.index_every_tokens = 50
    text = Text(900, dims={"s0": 12})
    node.sessions.create("graph", spec)
    writer = node.open("g", session="graph")
    writer.read(text, range(100, 901, 100))
    writer.save_tail()
    writer.session.core.state.indexes["s0"].settle()
    saved = sorted((_folder(node, "graph") / "shards" / "0").glob("*.bin"))
    assert saved
    node.sessions.fork("graph", "", "fork")
    shared = sorted((_folder(node, "fork") / "shards" / "0").glob("*.bin"))
    assert [path.name for path in shared][: len(saved)] == [path.name for path in saved]
    assert all(own.samefile(other) for own, other in zip(saved, shared, strict=False))
    assert memory_of(node.sessions.get("fork")) == memory_of(writer.session)


def test_blocks_that_left_the_parent_are_not_in_a_fork(node: Node) -> None:
    """Proves that what was forgotten after the cut is a gap in the fork too, as far as the fork goes."""
    writer = _cut_book(node)
    node.sessions.create_snapshot("book", "then")
    writer.read(TEXT, [700])
    writer.save_tail()
    core = writer.session.core
    forgotten = ForgottenRecord((range(1, 3), range(3, 9)), "test")
    with core.files.put_lock, core.lock:
        core.files.append(RecordKind.FORGOTTEN, core.epoch, pack_forgotten(forgotten))
    node.sessions.fork("book", "then", "fork")
    twin = node.open("two", session="fork")
    blocks = twin.session.core.state.blocks
    assert (blocks.whole(0, 99).tolist(), list(blocks.gaps)) == ([0], [range(1, 4)])
    assert twin.session.read_block(twin.attachment, 4)[2] == 300 % 64


def test_a_compacted_fork_writes_none_of_its_parents_files(node: Node) -> None:
    """Proves that a fork which lost its own files to a compaction begins new ones, and that the parent stays whole."""
    writer = _cut_book(node)
    node.sessions.fork("book", "", "fork")
    twin = node.open("two", session="fork")
    twin.put_one(60, 1, block_bytes(60))
    node.sessions.close_attachment("two")
    writer.read(TEXT, [500])
    node.close()
    fork, shared = _folder(Node(node.data), "fork"), "blocks-000001.seg"
    compact(fork, SYSTEM)
    again = Node(node.data)
    before = (_folder(again, "book") / shared).read_bytes()
    twin = again.open("three", session="fork")
    twin.read(OTHER, [450])
    assert (_folder(again, "book") / shared).read_bytes() == before
    for block in range(7):
        assert twin.session.read_block(twin.attachment, block)[0] == block_bytes(block)
    taken = again.open("four", session="book")
    for block in range(4):
        assert taken.session.read_block(taken.attachment, block)[0] == block_bytes(block)
    again.close()


def test_a_session_is_forked_while_it_is_written(node: Node) -> None:
    """Proves that forks made beside a writer that reads, puts and cuts are each whole at one of its tails."""
    writer, ends = node.open(), range(50, 901, 50)
    memories: dict[int, object] = {}
    failures: list[BaseException] = []

    def write() -> None:
        try:
            for end in ends:
                writer.read(TEXT, [end])
                writer.save_tail()
                memories[end] = memory_of(writer.session)
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=write)
    thread.start()
    positions = []
    for at in range(5):
        info, _ = node.sessions.fork("book", "", f"f{at}")
        positions.append(info.fork_position)
    thread.join()
    assert failures == []
    assert positions == sorted(positions)
    for at, position in enumerate(positions):
        forked = node.sessions.get(f"f{at}")
        assert position == 0 or memory_of(forked) == memories[position]
