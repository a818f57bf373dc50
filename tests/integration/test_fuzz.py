"""Messages gone wrong, sent to every method of a real node: each is its caller's fault, and nothing of it stays.

FUZZ_MESSAGES   how many; a sample in an ordinary run
FUZZ_SEED       the first seed; a run of N messages is one seed a 1,000
"""

import asyncio
import logging
import os
from pathlib import Path
from random import Random

import pytest

from tests.integration.fuzz_calls import CALLERS_FAULT, METHODS, Fuzz, Target, valid_requests
from tests.integration.fuzz_mutations import field_mutation, wire_mutation
from tests.integration.fuzz_node import (
    FuzzNode,
    GoodClient,
    delete_others,
    fuzz_node,
    least_held,
    pool_threads,
    settled,
)
from tests.integration.server_process import TIMEOUT_S

MESSAGES = int(os.environ.get("FUZZ_MESSAGES", "600"))
SEED = int(os.environ.get("FUZZ_SEED", "0"))
A_SEED, A_BATCH = 1_000, 24
# Steps, blocks, calls and syncing, as the settings have them, and the rounds of upkeep.
POOL_THREADS = 4 + 4 + 4 + 1 + 1
ENDINGS = {code.name for code in CALLERS_FAULT}


async def _fuzzed(node: FuzzNode, seed: int, messages: int, good: GoodClient) -> int:
    """Sends at least so many messages from a seed; how many they were. The good client works in between."""
    async with Target(node) as target:
        fuzz = Fuzz(node, target, Random(seed))
        while fuzz.sent < messages:
            await asyncio.gather(fuzz.batch(A_BATCH), good.work())
            assert fuzz.failures == [], f"seed {seed}, after {fuzz.sent} messages: {fuzz.failures[:3]}"
    await delete_others(node.stubs(), GoodClient.SESSION)
    return fuzz.sent


async def _whole(folder: Path) -> None:
    async with fuzz_node(folder) as node:
        good = GoodClient(node.stubs())
        await good.start()
        # Warm: what is made once and stays is there.
        await _fuzzed(node, SEED - 1, 3 * A_BATCH, good)
        before = await least_held(node)
        sent = seed = 0
        while sent < MESSAGES:
            sent += await _fuzzed(node, SEED + seed, min(A_SEED, MESSAGES - sent), good)
            seed += 1
            assert await settled(node, before) == []
        counted = {(method, code) for method, code in node.codes if code not in ENDINGS}
        assert counted <= {("Health/List", "UNIMPLEMENTED")}
        assert pool_threads() <= POOL_THREADS
        await good.work()
        await good.end()


@pytest.mark.timeout(max(300, MESSAGES // 20))
def test_messages_gone_wrong_are_their_callers_fault_and_leave_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Proves that whatever is sent to whichever method ends as the caller's fault or well, that no answer inside a
    stream is a failure of the node, that a good client is served all the while, and that descriptors, threads, tasks,
    shared memory, sessions, attachments and streams are afterwards what they were before."""
    with caplog.at_level(logging.ERROR):
        asyncio.run(_whole(tmp_path))
    assert [record.getMessage() for record in caplog.records if record.exc_info] == []


def test_bytes_that_are_no_message_are_refused_by_every_method(tmp_path: Path) -> None:
    """Proves that what does not parse is INVALID_ARGUMENT with a reason of ours, where gRPC by itself says UNKNOWN."""

    async def refused() -> dict[str, tuple[str, bool]]:
        answers = {}
        async with fuzz_node(tmp_path) as node:
            for name, method in METHODS.items():
                kinds = (method.client_streaming, method.server_streaming)
                kind = "_".join("stream" if streams else "unary" for streams in kinds)
                path = f"/{method.containing_service.full_name}/{name}"
                garbage = b"\xff" * 11
                made = getattr(node.channel, kind)(path)
                call = made(
                    iter([garbage]) if method.client_streaming else garbage, metadata=node.metadata, timeout=TIMEOUT_S
                )
                code = (await call.code()).name
                details = dict(await call.trailing_metadata()).get("grpc-status-details-bin", b"")
                answers[name] = (code, b"MESSAGE_MALFORMED" in details)
        return answers

    assert asyncio.run(refused()) == dict.fromkeys(METHODS, ("INVALID_ARGUMENT", True))


def test_the_same_seed_gives_the_same_messages() -> None:
    """Proves that a failure can be sent again."""
    target = Target.__new__(Target)
    target.epoch = target.seq = target.position = 0
    requests = [request for own in valid_requests(target).values() for request in own]
    data = [request.SerializeToString(deterministic=True) for request in requests]

    def drawn() -> list[bytes]:
        random = Random(7)
        fields = [field_mutation(random, one, ["word"]).SerializeToString(deterministic=True) for one in requests]
        return fields + [wire_mutation(random, one, data) for one in data]

    assert drawn() == drawn()
    assert set(valid_requests(target)) == set(METHODS)
