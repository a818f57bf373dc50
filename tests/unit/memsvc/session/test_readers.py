"""Many readers beside one writer: each sees what was there at some moment, and whole."""

import threading
from collections.abc import Callable

from memsvc.errors import BlockNotFound
from protos.memsvc.v1 import types_pb2
from tests.session_driver import Node, Text, block_bytes, memory_of

TEXT, ASKED = Text(3000), Text(3000, seed=2)
READERS = 6
END = 2600


def _all_at_once(works: list[Callable[[], None]]) -> list[BaseException]:
    """Runs each on a thread; what went wrong in any."""
    failures: list[BaseException] = []

    def guarded(work: Callable[[], None]) -> None:
        try:
            work()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=guarded, args=[work]) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return failures


def test_views_opened_while_a_writer_cuts_tails_are_whole(node: Node) -> None:
    """Proves that every block, id and bookmark before a view's cut is there as it was written, and none past it is."""
    writer, done = node.open(), threading.Event()

    def write() -> None:
        try:
            for end in range(100, END + 1, 100):
                writer.read(TEXT, [end])
                writer.save_tail()
                if end % 500 == 0:
                    node.sessions.create_snapshot("book", f"at-{end}")
        finally:
            done.set()

    def reader(at: int) -> Callable[[], None]:
        def read() -> None:
            turn = 0
            while not done.is_set() or turn < 3:
                turn += 1
                _check_view(node, f"v{at}-{turn}")

        return read

    assert _all_at_once([write, *(reader(at) for at in range(READERS))]) == []
    assert writer.session.info().tail_position == END


def _check_view(node: Node, attachment: str) -> None:
    view = node.open(attachment, view=True)
    session, position = view.session, view.position
    assert position % 100 == 0
    stored = [own.first + at for own in view.opened.stored_blocks for at in range(own.count)]
    assert stored == list(range(position // 64))
    for block in stored[-3:]:
        assert session.read_block(view.attachment, block)[0] == block_bytes(block)
    if position % 64:
        block, filled = divmod(position, 64)
        assert session.read_block(view.attachment, block)[::2] == (block_bytes(block, 1000 + filled), filled)
    try:
        session.read_block(view.attachment, position // 64 + 1)
        raise AssertionError("expected no block past the cut")
    except BlockNotFound:
        pass
    ids = session.read_tokens(types_pb2.Range(first=0, count=position)).ids
    assert ids == TEXT.ids[:position].tobytes()
    if position:
        answer = view.ask(ASKED, position + 50)
        assert all(own.block < position // 64 for own in answer.blocks)
    node.sessions.close_attachment(attachment)


def test_lists_read_beside_a_writer_only_grow(node: Node) -> None:
    """Proves that bookmarks once listed stay as they are, with links that point back, while more are written."""
    writer, done = node.open(), threading.Event()

    def write() -> None:
        try:
            writer.read(TEXT, range(50, END + 1, 50))
        finally:
            done.set()

    def read() -> None:
        session, known = node.sessions.get("book"), []
        finished = False
        while not finished:
            finished = done.is_set()
            listed = list(session.list_bookmarks(0, 10_000).bookmarks)
            assert listed[: len(known)] == known
            assert all(link.parent < own.index for own in listed for link in own.links)
            known = listed

    assert _all_at_once([write, *[read] * READERS]) == []


def test_a_snapshot_reads_alike_before_during_and_after_a_take_over(node: Node) -> None:
    """Proves that views of one cut answer alike while another writer voids steps and writes others in their place."""
    writer = node.open()
    writer.read(TEXT, [700])
    writer.save_tail()
    node.sessions.create_snapshot("book", "then")
    expected = node.open("first", view=True, snapshot="then").ask(ASKED, 760)
    memory = memory_of(writer.session)
    done = threading.Event()

    def write() -> None:
        try:
            for turn in range(6):
                own = node.open(f"w{turn}") if turn else writer
                own.read(Text(3000, seed=20 + turn), [800, 1000])
                node.sessions.worker_gone(f"w-{own.attachment.id}")
        finally:
            done.set()

    def reader(at: int) -> Callable[[], None]:
        def read() -> None:
            turn = 0
            while not done.is_set() or turn < 3:
                turn += 1
                view = node.open(f"r{at}-{turn}", view=True, snapshot="then")
                answer = view.ask(ASKED, 760)
                answer.attachment = expected.attachment
                assert answer == expected
                node.sessions.close_attachment(view.attachment.id)

        return read

    assert _all_at_once([write, *(reader(at) for at in range(READERS))]) == []
    node.open("last")
    assert memory_of(node.sessions.get("book")) == memory
