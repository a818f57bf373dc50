"""Each disk call of forking, naming and deleting fails once, or is the last of the process: whatever was answered holds
after a restart, and what was not is either done or undone, whole.

Does not show: what power loss does, since the page cache survives the end of a process (see test_power_loss.py).
"""

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from memsvc.errors import MemsvcError, SessionNotFound, StorageFailed
from memsvc.storage import Machine
from tests.crash.storages import Call, HookedStorage, Killed
from tests.crash.volume import volume
from tests.session_driver import Node, Text, memory_of

TEXT = Text(500)
# Below this the script does not do what it says.
CALLS_MIN = 100

Names = dict[str, str]


class FailingOnce(HookedStorage):
    """A disk on which one call goes wrong; or the process ends there, before the call or after it."""

    def __init__(self) -> None:
        super().__init__()
        self.at, self.how = 0, ""

    def before(self, call: Call) -> None:
        """The call is refused, or the process ends."""
        if self.at == call.number and self.how == "refused":
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        if self.at and self.how == "before" and call.number >= self.at:
            raise Killed

    def after(self, call: Call) -> None:
        """The process ends once the call is carried out; nothing is carried out from then on."""
        if self.at and self.how == "after" and call.number >= self.at:
            self.how = "before"
            raise Killed


class Script:
    """What is done to one session, and what was answered.

    Attributes:
        sure: Sessions by name that must be there, with whose memory they have.
        open: Of the step that was not answered: names that may be there or not.
    """

    def __init__(self, data: Path) -> None:
        self.disk = FailingOnce()
        self.node = Node(data, machine=Machine(self.disk))
        self.node.create()
        writer = self.node.open()
        writer.read(TEXT, [100, 300])
        writer.save_tail()
        self.old = memory_of(writer.session)
        self.node.sessions.create_snapshot("book", "old")
        writer.read(TEXT, [450])
        writer.save_tail()
        self.new = memory_of(writer.session)
        self.node.sessions.close_attachment("one")
        self.sure, self.open = {"book": "new"}, set[str]()
        self.snapshots, self.snapshots_open = {"old"}, set[str]()

    def steps(self) -> list[tuple[Callable[[], object], Callable[[], None], set[str], set[str]]]:
        """Each step, what is sure once it is answered, and the sessions and snapshots that are in doubt until then."""
        sessions = self.node.sessions
        return [
            (lambda: sessions.create_snapshot("book", "more"), lambda: self.snapshots.add("more"), set(), {"more"}),
            (lambda: sessions.fork("book", "", "a"), lambda: self.sure.update(a="new"), {"a"}, set()),
            (lambda: sessions.fork("book", "old", "b"), lambda: self.sure.update(b="old"), {"b"}, set()),
            (lambda: sessions.rename("b", "c"), lambda: self.sure.update(c=self.sure.pop("b")), {"b", "c"}, set()),
            (lambda: sessions.delete("a"), lambda: self._gone("a"), {"a"}, set()),
            (lambda: sessions.drop_snapshot("book", "old"), lambda: self.snapshots.discard("old"), set(), {"old"}),
            (lambda: sessions.fork("c", "", "d"), lambda: self.sure.update(d="old"), {"d"}, set()),
            (lambda: sessions.delete("d"), lambda: self._gone("d"), {"d"}, set()),
            (lambda: sessions.delete("c"), lambda: self._gone("c"), {"c"}, set()),
        ]

    def play(self) -> bool:
        """Up to the step that goes wrong; whether one did."""
        for act, answered, names, snapshots in self.steps():
            self.open, self.snapshots_open = names, snapshots
            try:
                act()
            except (Killed, StorageFailed):
                return True
            answered()
        self.open, self.snapshots_open = set(), set()
        return False

    def _gone(self, name: str) -> None:
        del self.sure[name]


def _check(script: Script, data: Path) -> None:
    """A new node over what is left: all that is sure is there, nothing else but what is in doubt, and each is whole."""
    node = Node(data)
    infos = {info.name: info for info in node.sessions.list(0, "")[0]}
    sure = set(script.sure) - script.open
    assert sure <= set(infos) <= sure | script.open
    if script.open == {"b", "c"}:
        assert len(set(infos) & script.open) == 1
    assert {path.name for path in (data / "sessions").iterdir()} == {info.id for info in infos.values()}
    memories = {"book": script.new, "a": script.new}
    for name in infos:
        assert memory_of(node.sessions.get(name)) == memories.get(name, script.old)
    snapshots = {own.name for own in node.sessions.get("book").list_snapshots()}
    kept = script.snapshots - script.snapshots_open
    assert kept <= snapshots <= kept | script.snapshots_open
    for name in snapshots:
        node.sessions.drop_snapshot("book", name)
    # Forks of forks first, the book last: a parent is refused until its forks are gone.
    for name in sorted(infos, key=lambda name: (name != "book", name), reverse=True):
        node.sessions.delete(name)
    assert list((data / "sessions").iterdir()) == []
    with pytest.raises(SessionNotFound):
        node.sessions.get("book")
    node.close()


@pytest.mark.parametrize("how", ["refused", "before", "after"])
def test_whatever_call_goes_wrong_nothing_is_half_done(tmp_path: Path, how: str) -> None:
    """Proves that after any failing call, or an end of the process around it, a restart finds whole sessions only."""
    first, at = 0, 0
    while True:
        data = tmp_path / f"{at}"
        script = Script(data)
        first = first or script.disk.calls
        script.disk.at, script.disk.how = first + 1 + at, how
        went_wrong = script.play()
        reached = script.disk.calls > first + at
        script.disk.at = 0
        _check(script, data)
        try:
            script.node.close()
        except MemsvcError:
            # Of a session whose log is closed as one that failed.
            assert went_wrong
        script.disk.close_all()
        if not reached:
            break
        # In an ordinary run some of them, by a prime so that kinds of calls do not repeat with it.
        at += volume(7, 1)
    assert at >= CALLS_MIN
