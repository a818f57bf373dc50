"""Rules of who gets a name, against a Redis that answers as the test says: others come between, or have it already."""

import uuid
from dataclasses import replace

import pytest

from memsvc.errors import ManifestUnavailable, SessionExists, WrongState
from memsvc.manifest import SessionEntry
from memsvc.manifest.redis_names import RedisNames
from memsvc.manifest.redis_state import Put, Seen

LOCAL = SessionEntry("s", uuid.uuid4().hex, b"spec", 1, 4)
FREE = Seen(id="", node="", epoch=0, owner="", lease_ms=0, settling_ms=0, address="")
OWN = Seen(id=LOCAL.id, node="here", epoch=4, owner="me", lease_ms=500, settling_ms=0, address="here:1")
ELSEWHERE = replace(OWN, node="there", owner="them", address="there:1")


class _State:
    """What is seen, one look after the other, the last one again and again; and whether changes come through."""

    def __init__(self, *seen: Seen, changes: tuple[bool, ...] = (True,)) -> None:
        self._seen, self._changes = list(seen), list(changes)
        self.puts: list[Put] = []
        self.removed: list[tuple[str, str, Seen]] = []

    def look(self, name: str) -> Seen:
        assert name == LOCAL.name
        return self._seen.pop(0) if len(self._seen) > 1 else self._seen[0]

    def put(self, seen: Seen, put: Put) -> bool:
        self.puts.append(put)
        return self._next()

    def remove(self, name: str, node: str, seen: Seen) -> bool:
        self.removed.append((name, node, seen))
        return self._next()

    def _next(self) -> bool:
        return self._changes.pop(0) if len(self._changes) > 1 else self._changes[0]


def _names(state: _State) -> RedisNames:
    return RedisNames(state, "here", "me")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("seen", "at_least", "held", "epoch"),
    [
        (FREE, 0, False, 4),
        (OWN, 0, True, 4),
        (replace(OWN, owner=""), 0, False, 4),
        # Given out by Redis and not noted here: a crash came between.
        (replace(OWN, epoch=7), 0, False, 7),
        (OWN, 1, True, 5),
        (OWN, 9, True, 9),
        (replace(OWN, epoch=7), 8, True, 8),
        (replace(OWN, epoch=7), 3, True, 8),
        # From another node, which had it as far as this one.
        (replace(ELSEWHERE, owner=""), 0, False, 5),
        (replace(ELSEWHERE, owner=""), 1, False, 5),
        # Redis is behind: told by a node that lost it, or put back.
        (replace(ELSEWHERE, epoch=3), 0, True, 4),
        (replace(ELSEWHERE, epoch=3, owner=""), 0, False, 4),
        (replace(OWN, epoch=3, settling_ms=9), 0, True, 4),
        (replace(OWN, settling_ms=9), 0, True, 4),
    ],
)
def test_a_session_that_may_be_had_is_claimed(seen: Seen, at_least: int, held: bool, epoch: int) -> None:
    """Proves which epoch each situation gives, and that lease and node are written with it; settled if not held."""
    state = _State(seen)
    assert _names(state).claim(LOCAL, at_least, held) == replace(LOCAL, epoch=epoch)
    assert state.puts == [Put(replace(LOCAL, epoch=epoch), "here", "me", settled=not held)]


@pytest.mark.parametrize(
    ("seen", "held"),
    [
        (ELSEWHERE, False),
        (ELSEWHERE, True),
        (replace(ELSEWHERE, epoch=3), False),
        (replace(ELSEWHERE, owner="", epoch=5), False),
        (replace(OWN, id="another"), True),
        (replace(ELSEWHERE, settling_ms=9), False),
    ],
)
def test_a_session_of_another_node_is_refused(seen: Seen, held: bool) -> None:
    """Proves that a lease elsewhere, a higher epoch elsewhere, or another session of the name keeps this node out."""
    state = _State(seen)
    for call in (lambda: _names(state).claim(LOCAL, 1, held), lambda: _names(state).remove(LOCAL, held)):
        with pytest.raises(WrongState, match=f"'s', which lives at {seen.address} in epoch {seen.epoch}") as raised:
            call()
        assert raised.value.reason == "SESSION_ELSEWHERE"
    assert (state.puts, state.removed) == ([], [])


@pytest.mark.parametrize(
    ("seen", "retry_s"), [(replace(OWN, owner="earlier"), 0.5), (replace(FREE, settling_ms=700), 0.7)]
)
def test_what_is_not_known_yet_is_to_be_asked_again(seen: Seen, retry_s: float) -> None:
    """Proves that a lease of an earlier process of this node, and a new Redis, are waits of a known length."""
    with pytest.raises(ManifestUnavailable) as raised:
        _names(_State(seen)).claim(LOCAL, 0, held=False)
    assert raised.value.retry_s == retry_s


def test_a_change_that_others_came_before_is_tried_again() -> None:
    """Proves that each change rests on what was seen last, and that it ends where others always come between."""
    state = _State(FREE, OWN, changes=(False, True))
    assert _names(state).claim(LOCAL, 1, held=True).epoch == 5
    assert [put.entry.epoch for put in state.puts] == [5, 5]
    never = _State(FREE, changes=(False,))
    for call in (
        lambda: _names(never).reserve(LOCAL),
        lambda: _names(never).claim(LOCAL, 0, held=True),
        lambda: _names(never).remove(LOCAL, held=True),
        lambda: _names(never).register(LOCAL),
    ):
        with pytest.raises(ManifestUnavailable, match="expected to change session 's' within 20 tries"):
            call()
    with pytest.raises(ManifestUnavailable, match="within 20 tries"):
        _names(_State(OWN, changes=(False,))).clear("s")


def test_a_name_is_reserved_if_nobody_has_it() -> None:
    """Proves that a free name and one that a crash left here are taken, once settled, and that others are not."""
    for seen in (FREE, OWN, replace(OWN, owner="")):
        state = _State(seen)
        _names(state).reserve(LOCAL)
        assert state.puts == [Put(LOCAL, "here", "me", settled=True)]
    for seen in (ELSEWHERE, replace(ELSEWHERE, owner=""), replace(OWN, owner="earlier"), replace(OWN, node="there")):
        with pytest.raises(SessionExists, match="got 's', held at"):
            _names(_State(seen)).reserve(LOCAL)
    with pytest.raises(ManifestUnavailable):
        _names(_State(replace(FREE, settling_ms=1))).reserve(LOCAL)


def test_a_node_that_did_not_say_where_it_listens_is_told_as_such() -> None:
    """Proves that the message holds without an address."""
    with pytest.raises(WrongState, match="lives at a node that did not say where it listens in epoch 4"):
        _names(_State(replace(ELSEWHERE, address=""))).require_not_elsewhere("s")


def test_a_name_is_nowhere_only_once_that_is_certain() -> None:
    """Proves that an unknown name passes when settled, one of this node always, and that a new Redis is no answer."""
    _names(_State(FREE)).require_not_elsewhere("s")
    _names(_State(replace(OWN, settling_ms=9))).require_not_elsewhere("s")
    with pytest.raises(ManifestUnavailable):
        _names(_State(replace(FREE, settling_ms=1))).require_not_elsewhere("s")


@pytest.mark.parametrize(
    ("seen", "written", "wait_ms"),
    [
        (FREE, True, 0),
        (OWN, False, 0),
        (replace(OWN, epoch=3), True, 0),
        (replace(OWN, owner="earlier"), False, 500),
        (replace(OWN, owner="", lease_ms=0), False, 0),
        (replace(ELSEWHERE, epoch=3), True, 0),
        (ELSEWHERE, False, 0),
        (replace(OWN, id="another", epoch=0), False, 0),
    ],
)
def test_a_session_is_registered_where_redis_is_behind(seen: Seen, written: bool, wait_ms: int) -> None:
    """Proves what a node tells Redis, that leases stay as they are, and how long an earlier process is waited for."""
    state = _State(seen)
    assert _names(state).register(LOCAL) == wait_ms
    assert state.puts == ([Put(LOCAL, "here", "", settled=False)] if written else [])


def test_only_own_names_are_cleared() -> None:
    """Proves that a name is removed if it is this node's, not if it moved, is gone or an earlier process has it."""
    for seen, cleared in ((OWN, True), (ELSEWHERE, False), (FREE, False), (replace(OWN, owner="earlier"), False)):
        state = _State(seen)
        _names(state).clear("s")
        assert state.removed == ([("s", "here", seen)] if cleared else [])
