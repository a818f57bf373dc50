"""Leases by the holder's own clock: what each moment and each word from outside lets it do."""

import pytest

from memsvc.errors import ManifestUnavailable, StaleEpoch
from memsvc.lease import Leases, boot_clock

TTL_S = 10.0
# What the holder uses of it.
HELD_S = 9.0


class _Time:
    now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def time() -> _Time:
    """A clock that stands."""
    return _Time()


@pytest.fixture
def leases(time: _Time) -> Leases:
    """One lease, of session s in epoch 4, asked for just now."""
    leases = Leases(TTL_S, time)
    leases.grant("s", time.now_s, 4)
    return leases


def test_a_lease_ends_before_it_ends_for_others(leases: Leases, time: _Time) -> None:
    """Proves that a writer passes for nine tenths of the time, counted from the asking, and not a moment longer."""
    end_s = time.now_s + HELD_S
    time.now_s = end_s - 0.001
    leases.require("s", 4)
    assert leases.holds("s")
    time.now_s = end_s
    with pytest.raises(ManifestUnavailable, match=r"lease of session 's' renewed in time, got one that ran out 0\.0 s"):
        leases.require("s", 4)
    assert not leases.holds("s")


def test_a_late_answer_counts_from_the_question(leases: Leases, time: _Time) -> None:
    """Proves that the time an answer took is not given to the holder."""
    asked_s = time.now_s
    time.now_s += 5
    leases.renew("s", asked_s + 2)
    time.now_s = asked_s + 2 + HELD_S
    assert not leases.holds("s")


def test_an_older_answer_shortens_nothing(leases: Leases, time: _Time) -> None:
    """Proves that answers that overtake each other leave the later end."""
    leases.renew("s", time.now_s + 3)
    leases.renew("s", time.now_s + 1)
    time.now_s += 3 + HELD_S - 0.001
    leases.require("s", 4)


def test_one_that_ran_out_can_be_renewed(leases: Leases, time: _Time) -> None:
    """Proves that a lease that nobody took goes on, and was wanted all the time."""
    time.now_s += 100
    assert leases.wanted() == ["s"]
    leases.renew("s", time.now_s)
    leases.require("s", 4)


def test_one_that_another_took_is_lost_for_good(leases: Leases, time: _Time) -> None:
    """Proves that a renewal that is on its way revives nothing, that the taker is named, and that a new grant does."""
    leases.lose("s", "it at host:1")
    leases.renew("s", time.now_s)
    assert (leases.wanted(), leases.holds("s")) == ([], False)
    with pytest.raises(StaleEpoch, match="expected the lease of session 's' at this node, got it at host:1"):
        leases.require("s", 4)
    leases.grant("s", time.now_s, 6)
    leases.require("s", 6)


def test_an_earlier_epoch_is_stale(leases: Leases, time: _Time) -> None:
    """Proves that writers before the newest epoch are refused while the lease is held, and later ones pass."""
    with pytest.raises(StaleEpoch, match="in epoch 4 or later, got 3"):
        leases.require("s", 3)
    leases.require("s", 5)
    leases.grant("s", time.now_s, 5)
    with pytest.raises(StaleEpoch):
        leases.require("s", 4)


def test_a_session_without_a_lease_is_not_written(leases: Leases) -> None:
    """Proves that what was never granted, or was dropped, passes nobody and is not wanted."""
    with pytest.raises(StaleEpoch, match="lease of session 'other' at this node, got none"):
        leases.require("other", 1)
    leases.drop("s")
    assert (leases.wanted(), leases.holds("s")) == ([], False)
    leases.drop("s")
    leases.lose("s", "nobody")
    leases.renew("s", 0)
    assert (leases.wanted(), leases.holds("s")) == ([], False)


def test_a_new_name_takes_the_lease_along(leases: Leases, time: _Time) -> None:
    """Proves that both names pass at first, and that only the new one is renewed."""
    leases.rename("s", "t")
    leases.rename("none", "u")
    assert leases.wanted() == ["t"]
    leases.require("s", 4)
    for name in ("s", "t"):
        leases.renew(name, time.now_s + 5)
    time.now_s += HELD_S
    leases.require("t", 4)
    assert not leases.holds("s")


def test_the_clock_only_rises() -> None:
    """Proves that the clock of leases is in seconds and does not go back."""
    readings = [boot_clock() for _ in range(100)]
    assert readings == sorted(readings)
    assert readings[-1] - readings[0] < 60
