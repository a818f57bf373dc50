"""The contract of a manifest, against every implementation; then what is SQLite's own."""

import sqlite3
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from memsvc.errors import ManifestUnavailable, SessionExists, SessionNotFound
from memsvc.manifest import Manifest, SessionEntry, SqliteManifest
from memsvc.manifest import sqlite as sqlite_module
from memsvc.manifest.redis import RedisManifest
from tests.redis_process import RedisProcess, needs_redis

LEASE_MS = 10_000

Opener = Callable[[], Manifest]


@pytest.fixture(scope="module")
def redis_process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisProcess]:
    """One Redis for all."""
    process = RedisProcess(tmp_path_factory.mktemp("redis"))
    yield process
    process.kill()


@pytest.fixture
def empty_redis(redis_process: RedisProcess) -> RedisProcess:
    """The same, with nothing in it, and no leases to wait for."""
    redis_process.client.flushall()
    redis_process.settle(LEASE_MS)
    return redis_process


@pytest.fixture(params=["sqlite", pytest.param("redis", marks=needs_redis)])
def opener(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Opener]:
    """Opens the same manifest, as often as it is called."""
    opened: list[Manifest] = []

    def open_one() -> Manifest:
        if request.param == "sqlite":
            opened.append(SqliteManifest(tmp_path / "manifest.sqlite"))
        else:
            # One owner: the openings are one process of one node.
            address = request.getfixturevalue("empty_redis").address(LEASE_MS)
            opened.append(RedisManifest(tmp_path, address, owner="opener"))
        return opened[-1]

    yield open_one
    for manifest in opened:
        manifest.close()


def _entry(name: str, epoch: int = 0) -> SessionEntry:
    return SessionEntry(name, uuid.uuid5(uuid.NAMESPACE_DNS, name).hex, b"spec \x00" + name.encode(), 1_700_000, epoch)


def test_an_entry_comes_back_as_it_was_created(opener: Opener) -> None:
    """Proves that every field survives, here and in a manifest opened later."""
    first = opener()
    entry = SessionEntry("A.b_c-9", uuid.uuid4().hex, bytes(range(256)), 2**62, 2**62)
    first.create(entry)
    assert first.get("A.b_c-9") == entry
    first.close()
    assert opener().get("A.b_c-9") == entry


def test_names_are_taken_once(opener: Opener) -> None:
    """Proves that a second create of a name fails and changes nothing, and that names differ by case."""
    manifest = opener()
    manifest.create(_entry("name"))
    with pytest.raises(SessionExists, match="got 'name'"):
        manifest.create(SessionEntry("name", uuid.uuid4().hex, b"other", 1, 9))
    assert manifest.get("name") == _entry("name")
    manifest.create(_entry("Name"))
    assert manifest.get("Name") == _entry("Name")


def test_a_name_that_was_deleted_is_free(opener: Opener) -> None:
    """Proves that a deleted session is gone for good, and that its name can be used again, from epoch 0."""
    manifest = opener()
    manifest.create(_entry("name"))
    manifest.next_epoch("name", 50)
    manifest.delete("name")
    assert manifest.get("name") is None
    manifest.create(SessionEntry("name", uuid.uuid4().hex, b"new", 1, 0))
    assert manifest.next_epoch("name", 0) == 1


def test_an_unknown_name_is_not_found(opener: Opener) -> None:
    """Proves that get answers None, and that calls which need a session say which one is missing."""
    manifest = opener()
    assert manifest.get("none") is None
    with pytest.raises(SessionNotFound, match="got 'none'"):
        manifest.next_epoch("none", 1)
    with pytest.raises(SessionNotFound, match="got 'none'"):
        manifest.delete("none")


def test_lists_are_pages_by_name(opener: Opener) -> None:
    """Proves that pages in order of name, one after the other, give every session once."""
    manifest = opener()
    names = ["a", "B", "b", "a-1", "a.1", "a_1", "0", "Z"]
    for name in names:
        manifest.create(_entry(name))
    pages, after = [], ""
    while page := manifest.list(after, 3):
        pages.append([entry.name for entry in page])
        after = pages[-1][-1]
    assert pages == [["0", "B", "Z"], ["a", "a-1", "a.1"], ["a_1", "b"]]
    assert manifest.list("a", 1) == [_entry("a-1")]
    assert manifest.list("", 0) == []


def test_epochs_rise_by_one_or_to_what_is_asked(opener: Opener) -> None:
    """Proves that an epoch is the stored one plus one, or more if asked, and that a manifest opened later goes on."""
    first = opener()
    first.create(_entry("name", epoch=3))
    assert [first.next_epoch("name", at_least) for at_least in (0, 5, 6, 20, 1)] == [4, 5, 6, 20, 21]
    first.close()
    second = opener()
    assert second.get("name") == _entry("name", epoch=21)
    assert second.next_epoch("name", 0) == 22


def test_a_session_takes_another_name(opener: Opener) -> None:
    """Proves that a renamed session is the same under the new name alone, and that the former one is free."""
    first = opener()
    first.create(_entry("name", epoch=3))
    first.rename("name", "other")
    assert first.get("name") is None
    renamed = replace(_entry("name", epoch=3), name="other")
    assert first.get("other") == renamed
    first.create(SessionEntry("name", uuid.uuid4().hex, b"new", 1, 0))
    assert [entry.name for entry in first.list("", 9)] == ["name", "other"]
    first.close()
    second = opener()
    assert second.get("other") == renamed
    assert second.next_epoch("other", 0) == 4


def test_a_name_that_is_taken_is_not_given(opener: Opener) -> None:
    """Proves that a rename to a taken name, its own included, and of an unknown one fail and change nothing."""
    manifest = opener()
    for name in ("a", "b"):
        manifest.create(_entry(name))
    for to in ("a", "b"):
        with pytest.raises(SessionExists, match=f"got '{to}'"):
            manifest.rename("a", to)
    with pytest.raises(SessionNotFound, match="got 'none'"):
        manifest.rename("none", "c")
    assert manifest.list("", 9) == [_entry("a"), _entry("b")]


def test_a_session_of_this_node_may_be_written(opener: Opener) -> None:
    """Proves that whoever made a session, or asked for it, may write it in the epochs given since, renamed or not."""
    first = opener()
    first.check()
    first.announce("127.0.0.1:1")
    first.create(_entry("name"))
    first.require_held("name", 0)
    epoch = first.next_epoch("name", 7)
    first.require_held("name", epoch)
    first.rename("name", "other")
    first.require_held("other", epoch)
    first.close()
    second = opener()
    assert second.get("other") is not None
    second.require_held("other", epoch)


def test_epochs_of_other_sessions_stay(opener: Opener) -> None:
    """Proves that raising one session's epoch leaves its neighbours'."""
    manifest = opener()
    for name in ("a", "b"):
        manifest.create(_entry(name))
    manifest.next_epoch("a", 9)
    assert manifest.get("b") == _entry("b")


def test_no_epoch_is_given_twice(opener: Opener) -> None:
    """Proves that callers at once, of two openings, each get an epoch of their own."""
    manifests = [opener(), opener()]
    manifests[0].create(_entry("name"))
    with ThreadPoolExecutor(4) as threads:
        epochs = list(threads.map(lambda at: manifests[at % 2].next_epoch("name", 0), range(40)))
    assert sorted(epochs) == list(range(1, 41))


def test_one_of_two_creators_wins(opener: Opener) -> None:
    """Proves that of many creates of one name at once exactly one succeeds, and its entry is the one kept."""
    manifest = opener()

    def create(at: int) -> int | None:
        try:
            manifest.create(SessionEntry("name", uuid.UUID(int=at).hex, b"", at, 0))
        except SessionExists:
            return None
        return at

    with ThreadPoolExecutor(4) as threads:
        winners = [at for at in threads.map(create, range(20)) if at is not None]
    assert len(winners) == 1
    kept = manifest.get("name")
    assert kept is not None
    assert kept.created_unix_ms == winners[0]


def test_closing_twice_is_fine(opener: Opener) -> None:
    """Proves that a second close does nothing."""
    manifest = opener()
    manifest.close()
    manifest.close()


def test_a_closed_manifest_is_unavailable(opener: Opener) -> None:
    """Proves that a call after close is the error of a manifest that does not answer."""
    manifest = opener()
    manifest.close()
    for call in (lambda: manifest.get("name"), manifest.check):
        with pytest.raises(ManifestUnavailable):
            call()


def test_sqlite_writes_ahead_and_waits_for_the_disk(tmp_path: Path) -> None:
    """Proves that the promise of durability is set in SQLite: WAL, and an fsync for each transaction."""
    manifest = SqliteManifest(tmp_path / "manifest.sqlite")
    full = 2
    assert manifest._connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert manifest._connection.execute("PRAGMA synchronous").fetchone() == (full,)
    manifest.close()


def test_sqlite_refuses_what_is_no_database(tmp_path: Path) -> None:
    """Proves that another file in the manifest's place is an error, and stays as it is."""
    path = tmp_path / "manifest.sqlite"
    path.write_bytes(b"not a database " * 100)
    with pytest.raises(ManifestUnavailable, match="not a database"):
        SqliteManifest(path)
    assert path.read_bytes() == b"not a database " * 100


@pytest.mark.parametrize(
    "change", ["PRAGMA user_version = 2", "PRAGMA application_id = 1", "PRAGMA application_id = 0"]
)
def test_sqlite_refuses_another_schema(tmp_path: Path, change: str) -> None:
    """Proves that a manifest of another version or program is refused and named, not changed."""
    path = tmp_path / "manifest.sqlite"
    SqliteManifest(path).close()
    other = sqlite3.connect(path)
    other.execute(change)
    other.close()
    with pytest.raises(ManifestUnavailable, match=f"expected a manifest of schema version 1 .* at {path}"):
        SqliteManifest(path)


def test_sqlite_leaves_a_strangers_database_alone(tmp_path: Path) -> None:
    """Proves that tables of another program are not joined by ours."""
    path = tmp_path / "manifest.sqlite"
    other = sqlite3.connect(path)
    other.execute("CREATE TABLE theirs (x)")
    other.close()
    content = path.read_bytes()
    with pytest.raises(ManifestUnavailable, match="got version 0"):
        SqliteManifest(path)
    assert path.read_bytes() == content


def test_sqlite_says_when_another_process_holds_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Proves that waiting for a lock ends in ManifestUnavailable, and that the same manifest answers afterwards."""
    monkeypatch.setattr(sqlite_module, "_BUSY_TIMEOUT_S", 0.05)
    path = tmp_path / "manifest.sqlite"
    manifest = SqliteManifest(path)
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(ManifestUnavailable, match=f"got database is locked, at {path}"):
        manifest.create(_entry("name"))
    other.execute("ROLLBACK")
    other.close()
    manifest.create(_entry("name"))
    manifest.close()


def test_sqlite_says_when_its_folder_is_missing(tmp_path: Path) -> None:
    """Proves that a path that cannot be opened is ManifestUnavailable, with the path."""
    path = tmp_path / "none" / "manifest.sqlite"
    with pytest.raises(ManifestUnavailable, match=f"at {path}"):
        SqliteManifest(path)


def test_sqlite_takes_an_epoch_from_outside(tmp_path: Path) -> None:
    """Proves that an epoch that was given elsewhere is kept if it is higher, and changes nothing if it is not."""
    manifest = SqliteManifest(tmp_path / "manifest.sqlite")
    manifest.create(_entry("name", epoch=5))
    for epoch, kept in ((4, 5), (9, 9), (9, 9)):
        manifest.raise_epoch("name", epoch)
        assert manifest.get("name") == _entry("name", epoch=kept)
    with pytest.raises(SessionNotFound, match="got 'none'"):
        manifest.raise_epoch("none", 1)
    manifest.close()
