"""What tests of verifying, repairing and forgetting share: a data folder with sessions in it, and what it answers."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

from memsvc.log_format import FILE_NAME
from memsvc.shards.files import store
from memsvc.verify.log_scan import LogScan, scan_log
from tests.session_driver import BLOCK_BYTES, Node, Text, memory_of, session_spec

TOKENS, TAIL = 900, 700
TEXT = Text(TOKENS + 200)
# Bytes of a block in its segment, its header included.
PIECE_BYTES = 28 + BLOCK_BYTES


@dataclass(frozen=True)
class Answers:
    """What a folder's session answers: its memory, a view's recall, and the bytes of the blocks before the tail."""

    memory: dict[str, object]
    recall: bytes
    blocks: dict[int, bytes]


def written(data: Path, policy: str = "surprisal") -> Path:
    """A folder whose session "book" has a void part, a tail with a partial block, and steps after it; its folder."""
    node = Node(data)
    node.create(session_spec(policy))
    first = node.open("first")
    first.read(TEXT, range(50, TAIL - 90, 50))
    first.save_tail()
    first.read(TEXT, range(TAIL - 80, TAIL + 40, 40))
    node.sessions.worker_gone("w-first")
    writer = node.open("second")
    writer.read(TEXT, range(writer.position + 30, TAIL, 30))
    writer.read(TEXT, [TAIL])
    writer.save_tail()
    writer.read(TEXT, range(TAIL + 50, TOKENS + 1, 50))
    node.close()
    return folder_of(data)


def folder_of(data: Path) -> Path:
    """Of the one session."""
    (folder,) = (data / "sessions").iterdir()
    return folder


def with_shard(folder: Path, data: Path) -> Path:
    """Saves a shard's file of the session's first 100 bookmarks, as a finder would; its path."""
    node = Node(data)
    index = node.sessions.get("book").core.state.indexes["s0"]
    digest = hashlib.blake2b(index.exact_rows(0, 100).tobytes(), digest_size=16).hexdigest()
    node.close()
    (folder / "shards" / "0").mkdir()
    return store(folder / "shards" / "0", "hnsw", 0, digest, lambda path: _write(Path(path)))


def answers(data: Path) -> Answers:
    """Opens the folder, asks, and closes it again."""
    node = Node(data)
    try:
        memory = memory_of(node.sessions.get("book"))
        view = node.open("view", view=True)
        blocks = {
            int(block): view.session.read_block(view.attachment, int(block))[0]
            for block in view.session.core.state.blocks.whole(0, view.position // 64).tolist()
        }
        return Answers(memory, view.ask(TEXT, view.position + 60).SerializeToString(deterministic=True), blocks)
    finally:
        node.close()


def scanned(folder: Path) -> LogScan:
    """The session's log."""
    return scan_log((folder / FILE_NAME).read_bytes(), folder.name)


def flip(path: Path, offset: int, mask: int = 1) -> None:
    """Changes bits of one byte."""
    content = bytearray(path.read_bytes())
    content[offset] ^= mask
    path.write_bytes(content)


def contents(data: Path) -> dict[str, bytes]:
    """Every file of a folder."""
    return {str(path.relative_to(data)): path.read_bytes() for path in sorted(data.rglob("*")) if path.is_file()}


def _write(path: Path) -> None:
    path.write_bytes(bytes(range(256)) * 16)
