"""Quotas and rates, on a clock with hands."""

import threading

import pytest

from memsvc.auth.quotas import PACE_MAX_S, RECOUNT_S, Bucket, Quota, Quotas, Usage, no_quotas
from memsvc.errors import QuotaExceeded
from tests.credential_book import HandClock


class Node:
    """Quotas of made-up tenants over a made-up disk."""

    def __init__(self, **quotas: Quota) -> None:
        self.clock = HandClock()
        self.allowed = quotas
        self.usage: dict[str, Usage] = {}
        self.counted = 0
        self.quotas = Quotas(lambda tenant: self.allowed.get(tenant, Quota()), self._usage_of, self.clock)

    def _usage_of(self, tenant: str) -> Usage:
        self.counted += 1
        return self.usage.get(tenant, Usage(frozenset(), 0))

    def has(self, tenant: str, stored_bytes: int = 0, names: str = "") -> None:
        """Puts sessions and bytes on the disk."""
        self.usage[tenant] = Usage(frozenset(f"{tenant}/{name}" for name in names.split()), stored_bytes)


def test_a_bucket_gives_its_rate_over_any_time() -> None:
    """Proves that after one second's worth no more is given than the rate, however it is asked for."""
    clock = HandClock()
    bucket = Bucket(10, clock)
    given, began = 0, clock.now_s
    waits: list[float | None] = []
    for _ in range(1000):
        try:
            bucket.draw(1, 0.0)
            given += 1
        except QuotaExceeded as error:
            waits.append(error.retry_s)
        clock.now_s += 0.013
    assert all(wait is not None and 0 < wait <= 0.1 + 1e-9 for wait in waits)
    elapsed = clock.now_s - began
    # One second's worth at once, then the rate; less one draw, for the step between two tries.
    assert 10 * elapsed - 1 <= given <= 10 + 10 * elapsed


def test_a_refusal_takes_nothing_and_says_when_to_come_back() -> None:
    """Proves that coming back at the time that was said is enough, and a moment earlier is not."""
    clock = HandClock()
    bucket = Bucket(4, clock)
    for _ in range(4):
        bucket.draw(1, 0.0)
    with pytest.raises(QuotaExceeded) as raised:
        bucket.draw(1, 0.0)
    assert (raised.value.reason, raised.value.retry_s) == ("RATE_EXCEEDED", 0.25)
    clock.now_s += 0.2
    with pytest.raises(QuotaExceeded):
        bucket.draw(1, 0.0)
    clock.now_s += 0.05 + 1e-9
    assert bucket.draw(1, 0.0) == 0.0


def test_calls_of_one_tenant_do_not_use_up_anothers() -> None:
    """Proves that rates are a tenant's own, and that a tenant without one has none."""
    node = Node(acme=Quota(calls_per_s=2), globex=Quota(calls_per_s=2))
    for _ in range(2):
        node.quotas.admit_call("acme")
    with pytest.raises(QuotaExceeded):
        node.quotas.admit_call("acme")
    node.quotas.admit_call("globex")
    for _ in range(100):
        node.quotas.admit_call("initech")


def test_tokens_are_paced_and_refused_once_too_far_past_the_rate() -> None:
    """Proves that a step waits for its tokens, that a larger one than a second's worth passes a full bucket, and that a
    stream that would wait longer than the limit is refused with the time to wait."""
    node = Node(acme=Quota(tokens_per_s=100))
    assert node.quotas.pace("acme", 100) == 0.0
    assert node.quotas.pace("acme", 50) == pytest.approx(0.5)
    node.clock.now_s += 1.5
    assert node.quotas.pace("acme", 1000) == 0.0
    with pytest.raises(QuotaExceeded) as raised:
        node.quotas.pace("acme", 1)
    assert raised.value.reason == "RATE_EXCEEDED"
    assert raised.value.retry_s is not None
    assert raised.value.retry_s == pytest.approx(9.01)
    node.clock.now_s += raised.value.retry_s - PACE_MAX_S + 0.001
    assert node.quotas.pace("acme", 1) == pytest.approx(PACE_MAX_S, abs=0.01)


def test_a_rate_that_is_changed_holds_from_the_next_call_on() -> None:
    """Proves that a reload of the file needs no restart."""
    node = Node(acme=Quota(calls_per_s=1))
    node.quotas.admit_call("acme")
    node.allowed["acme"] = Quota(calls_per_s=3)
    for _ in range(3):
        node.quotas.admit_call("acme")
    with pytest.raises(QuotaExceeded):
        node.quotas.admit_call("acme")


def test_stored_bytes_are_what_was_counted_and_what_was_admitted_since() -> None:
    """Proves that the quota is kept to the byte between two counts, and that a count makes room again."""
    node = Node(acme=Quota(stored_bytes_max=100))
    node.has("acme", stored_bytes=40)
    node.quotas.admit_bytes("acme", 50)
    node.quotas.admit_bytes("acme", 10)
    with pytest.raises(QuotaExceeded) as raised:
        node.quotas.admit_bytes("acme", 1)
    assert (raised.value.reason, raised.value.retry_s) == ("QUOTA_EXCEEDED", RECOUNT_S)
    assert node.counted == 1
    node.has("acme", stored_bytes=99)
    node.clock.now_s += RECOUNT_S
    node.quotas.admit_bytes("acme", 1)
    assert node.counted == 2
    node.quotas.admit_bytes("globex", 1 << 60)
    assert node.counted == 2


def test_sessions_are_counted_anew_and_one_that_is_there_may_be_made_again() -> None:
    """Proves that the last one fits, one past it does not, and that a retry of one that was made is fine."""
    node = Node(acme=Quota(sessions_max=2))
    node.has("acme", names="a")
    node.quotas.admit_session("acme", "acme/b")
    node.has("acme", names="a b")
    node.quotas.admit_session("acme", "acme/b")
    with pytest.raises(QuotaExceeded, match="expected at most 2 sessions, got one more"):
        node.quotas.admit_session("acme", "acme/c")
    node.quotas.admit_session("globex", "globex/c")
    assert (node.quotas.sessions_limited("acme"), node.quotas.sessions_limited("globex")) == (True, False)


def test_threads_together_are_given_no_more_than_one_would_be() -> None:
    """Proves that bytes admitted from several threads add up."""
    node = Node(acme=Quota(stored_bytes_max=100))
    admitted: list[int] = []

    def admit() -> None:
        for _ in range(50):
            try:
                node.quotas.admit_bytes("acme", 1)
                admitted.append(1)
            except QuotaExceeded:
                pass

    threads = [threading.Thread(target=admit) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(admitted) == 100


def test_without_credentials_nothing_is_limited() -> None:
    """Proves that an open server asks nothing of the disk and refuses nothing."""
    quotas = no_quotas()
    for _ in range(1000):
        quotas.admit_call("")
    quotas.admit_bytes("", 1 << 60)
    assert quotas.pace("", 1 << 30) == 0.0
    assert not quotas.sessions_limited("")
