"""What clients that work side by side are told could have come about one call after the other.

HISTORY_SEEDS, HISTORY_CLIENTS, HISTORY_CALLS   how many; a sample in an ordinary run
HISTORY_SEED                                    the first seed
"""

import asyncio
import dataclasses
import os
from pathlib import Path
from random import Random

import pytest

from tests.integration.history_attached import Append, Fetch, OpenWriter, Put, SaveTail
from tests.integration.history_model import Create, Family, Look
from tests.integration.history_plan import recorded
from tests.integration.linearizability import Call, Operation, Verdict, check
from tests.integration.server_process import served

SEEDS = int(os.environ.get("HISTORY_SEEDS", "2"))
CLIENTS = int(os.environ.get("HISTORY_CLIENTS", "8"))
CALLS = int(os.environ.get("HISTORY_CALLS", "60"))
SEED = int(os.environ.get("HISTORY_SEED", "0"))
A, NAME = "attachment", "f0-a"
# As a count, an epoch or a salt.
NEVER = 1_000_000_000

History = list[Operation[Family]]


def _recorded(folder: Path, seed: int) -> dict[str, History]:
    with served(folder) as server:
        return asyncio.run(recorded(server.address, seed, CLIENTS, CALLS)).operations


def _told(verdict: Verdict[Family]) -> str:
    """What a person needs to see why there is no order."""
    stuck = "\n".join(f"  client {own.client} from {own.start} to {own.end}: {own.call}" for own in verdict.stuck)
    return f"expected one of these after {verdict.ordered} operations, got none that follows:\n{stuck}\n{verdict.state}"


def _in_turn(*calls: Call[Family]) -> History:
    return [Operation(0, 2 * at, 2 * at + 1, call) for at, call in enumerate(calls)]


BEGUN = (
    Create(NAME, True, "id", 0),
    OpenWriter(NAME, A, "w", "", epoch=1),
    Append(A, 1, 0, 64, 7, "", 64),
    Put(A, 0, (0, 9), ""),
)


@pytest.mark.timeout(max(300, SEEDS * CLIENTS * CALLS // 20))
@pytest.mark.parametrize("seed", range(SEED, SEED + SEEDS))
def test_what_clients_are_told_side_by_side_has_an_order(seed: int, tmp_path: Path) -> None:
    """Proves of every session, and of what it is renamed or forked to, that there is an order of all calls in which
    each comes while it was under way and each answer follows from those before: what was acknowledged is seen by every
    call that begins later, nothing is seen that was not written, and nobody but the newest writer writes."""
    histories = _recorded(tmp_path, seed)
    assert sum(map(len, histories.values())) >= CLIENTS * CALLS // 2
    for history in histories.values():
        verdict = check(history, Family())
        assert verdict.linearizable, _told(verdict)


def test_a_history_that_was_tampered_with_is_refused(tmp_path: Path) -> None:
    """Proves of a real history that the checker is no rubber stamp: each answer that is changed to another one that a
    server could have given, or a write that is taken out, is noticed."""
    histories = _recorded(tmp_path, SEED)
    history = max(histories.values(), key=len)
    assert check(history, Family()).linearizable
    random, tried = Random(SEED), 0
    for at in random.sample(range(len(history)), len(history)):
        for changed in _tampered(history[at].call):
            own = [*history[:at], dataclasses.replace(history[at], call=changed), *history[at + 1 :]]
            assert not check(own, Family()).linearizable, f"expected a refusal of {changed} for {history[at].call}"
            tried += 1
        if tried > 40:
            break
    assert tried > 10


def _tampered(call: Call[Family]) -> list[Call[Family]]:
    """Answers that are wrong whatever else happened: each is of something that nobody did."""
    if isinstance(call, Look) and call.seen is not None and "tokens" in call.seen:
        return [Look(call.name, {**call.seen, "tokens": NEVER}), Look(call.name, {**call.seen, "id": "other"})]
    if isinstance(call, Fetch) and call.stored is not None:
        return [dataclasses.replace(call, stored=(call.stored[0], NEVER))]
    if isinstance(call, Append) and not call.reason:
        return [dataclasses.replace(call, bookmarks=NEVER)]
    if isinstance(call, OpenWriter) and not call.reason:
        return [dataclasses.replace(call, epoch=NEVER), dataclasses.replace(call, position=NEVER)]
    return []


BROKEN: dict[str, History] = {
    "an acknowledged step is not seen": _in_turn(*BEGUN, Look(NAME, {"tokens": 0})),
    "a step is seen that was not sent": _in_turn(*BEGUN, Look(NAME, {"tokens": 65})),
    "a block comes back as another": _in_turn(*BEGUN, Fetch(A, 0, "", (0, 8))),
    "a block that was put is not found": _in_turn(*BEGUN, Fetch(A, 0, "BLOCK_NOT_FOUND")),
    "two writers at once": _in_turn(*BEGUN, OpenWriter(NAME, "b", "v", "", epoch=2)),
    "a stale writer's step is taken": _in_turn(
        *BEGUN[:2],
        *(dataclasses.replace(call) for call in BEGUN[2:]),
        SaveTail(A, 64, ""),
        OpenWriter(NAME, "b", "v", "SESSION_HAS_WRITER"),
        Append("b", 1, 64, 1, 8, "", 65),
    ),
    "an epoch is given twice": _in_turn(Create(NAME, True, "id", 0), OpenWriter(NAME, A, "w", "", epoch=2)),
    "a tail is saved over a hole": _in_turn(*BEGUN[:3], SaveTail(A, 64, "")),
    "a write comes before it was asked for": [
        *_in_turn(*BEGUN[:2], Look(NAME, {"tokens": 64})),
        Operation(1, 10, 11, BEGUN[2]),
    ],
    "two readers see two writes in two orders": [
        *_in_turn(Create(NAME, True, "id", 0), OpenWriter(NAME, A, "w", "", epoch=1)),
        Operation(0, 10, 40, Put(A, 0, (0, 1), "")),
        Operation(1, 11, 41, Put(A, 1, (0, 2), "")),
        Operation(2, 12, 13, Fetch(A, 0, "", (0, 1))),
        Operation(2, 14, 15, Fetch(A, 1, "BLOCK_NOT_FOUND")),
        Operation(3, 16, 17, Fetch(A, 1, "", (0, 2))),
        Operation(3, 18, 19, Fetch(A, 0, "BLOCK_NOT_FOUND")),
    ],
}


@pytest.mark.parametrize("broken", BROKEN)
def test_a_history_that_is_broken_is_refused(broken: str) -> None:
    """Proves the checker against histories that no server may give, one fault in each."""
    assert not check(BROKEN[broken], Family()).linearizable


def test_calls_that_overlap_may_be_seen_in_either_order() -> None:
    """Proves that the checker refuses nothing that a server may do: a call that is under way is seen or not, and from
    then on it is."""
    put = Operation(0, 10, 40, BEGUN[3])
    begun = _in_turn(*BEGUN[:3])
    before = Operation(1, 11, 12, Fetch(A, 0, "BLOCK_NOT_FOUND"))
    after = Operation(1, 13, 14, Fetch(A, 0, "", (0, 9)))
    assert check([*begun, put, before, after], Family()).linearizable
    assert check(_in_turn(*BEGUN), Family()).linearizable
    swapped = [dataclasses.replace(before, start=13, end=14), dataclasses.replace(after, start=11, end=12)]
    assert not check([*begun, put, *swapped], Family()).linearizable
