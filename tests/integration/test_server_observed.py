"""A server that is watched: numbers, health and log lines of a real process at work."""

import asyncio
import contextlib
import errno
import json
import os
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from prometheus_client.parser import text_string_to_metric_families

from memsvc.cli import main
from memsvc.errors import ManifestUnavailable, StorageFailed
from memsvc.lines import session_tag
from memsvc.metrics.catalogue import METRICS, PROCESS_METRICS
from memsvc.server import Server
from memsvc.session import Sessions
from memsvc.settings import ObserveSettings, ServerSettings, TimingSettings
from protos.memsvc.v1 import session_pb2, types_pb2
from tests.integration.server_process import (
    TIMEOUT_S,
    ServerProcess,
    Stubs,
    Worker,
    block_data,
    connected,
    created,
    put,
    recall,
    served,
    step,
)
from tests.session_driver import Text, session_spec

# Stand in names, bytes and ids, and must stand nowhere else.
CANARY = "canary-0d9a"
CANARY_ID = 4_110_203_117
REAL_FSYNC = os.fsync


Numbers = dict[tuple[str, ...], float]


@dataclass(frozen=True)
class Watched:
    """A server with HTTP pages."""

    server: ServerProcess
    stubs: Stubs
    http: str

    def page(self, path: str) -> tuple[int, str]:
        """Status and body."""
        return _page(self.http, path)

    def numbers(self) -> Numbers:
        """Values by name and label values, in the order of the labels' names."""
        status, text = self.page("/metrics")
        assert status == 200
        families = text_string_to_metric_families(text)
        return {(one.name, *one.labels.values()): one.value for family in families for one in family.samples}

    def numbers_once(self, holds: Callable[[Numbers], bool]) -> Numbers:
        """The first numbers that hold: a caller may have its answer a moment before the call is noted."""
        while not holds(found := self.numbers()):
            pass
        return found


def _page(address: str, path: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://{address}{path}", timeout=TIMEOUT_S) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


@contextmanager
def _watched(folder: Path, *arguments: str) -> Iterator[Watched]:
    with served(folder, "--http", "127.0.0.1:0", *arguments) as server, connected(server.address) as stubs:
        assert server.process.stdout is not None
        line = server.process.stdout.readline()
        assert line.startswith("memsvc: http on 127.0.0.1:")
        yield Watched(server, stubs, line.split()[-1])


def _at_work(stubs: Stubs, name: str) -> tuple[Worker, int]:
    """A session of 8 blocks, 4 of them stored, 3 refused requests, one recall, one fetch; its worker stays."""
    created(stubs, name)
    worker = Worker(stubs, name)
    worker.receive()
    epoch = worker.open(name, name).epoch
    worker.steps(*(step(name, epoch, 1 + at, 64 * at) for at in range(7)))
    worker.steps(step(name, epoch, 1, 0))
    worker.steps(step(name, epoch + 1, 9, 448))
    worker.steps(step(name, epoch, 8, 448, recall=recall(blocks_through=4)))
    assert [worker.receive().WhichOneof("message") for _ in range(10)] == ["ack"] * 8 + ["fault", "ack"]
    blocks = [put(name, epoch, block, block_data(block)) for block in range(4)]
    damaged = put(name, epoch, 4, block_data(4), crc32c=1)
    answers = stubs.blocks.PutBlocks(iter([*blocks, damaged]), timeout=TIMEOUT_S)
    assert [one.reason for one in answers] == [""] * 4 + ["CORRUPT_BLOCK"]
    assert worker.receive().recall.seq == 8
    with pytest.raises(grpc.RpcError, match="NOT_FOUND"):
        stubs.sessions.GetSession(session_pb2.GetSessionRequest(name=f"{name}-missing"), timeout=TIMEOUT_S)
    return worker, epoch


def _all_noted(found: Numbers) -> bool:
    """Whether what `_at_work` did last is counted: the recall and the session that was not there."""
    return bool(found["memsvc_recall_seconds_count",]) and ("memsvc_errors_total", "SESSION_NOT_FOUND") in found


def test_the_numbers_say_what_was_done(tmp_path: Path) -> None:
    """Proves each counter after known work: a repeated step counts once, refusals by reason, and gauges as they are."""
    with _watched(tmp_path) as watched:
        worker, epoch = _at_work(watched.stubs, "book")
        found = watched.numbers_once(_all_noted)
        session = watched.stubs.sessions.GetSession(session_pb2.GetSessionRequest(name="book"), timeout=TIMEOUT_S)
        assert found["memsvc_tokens_total",] == session.session.tokens == 512
        assert found["memsvc_bookmarks_total",] == session.session.bookmarks
        assert found["memsvc_step_seconds_count",] == 8
        assert found["memsvc_search_seconds_count", "flat"] == 1
        assert found["memsvc_recalls_total", "answered"] == 1
        assert found["memsvc_put_bytes_total", "grpc"] == 4 * len(block_data(0))
        reasons = {key[1]: value for key, value in found.items() if key[0] == "memsvc_errors_total"}
        assert reasons == {"STALE_EPOCH": 1, "CORRUPT_BLOCK": 1, "SESSION_NOT_FOUND": 1}
        assert (found["memsvc_epoch_rejects_total",], found["memsvc_corruption_detected_total",]) == (1, 1)
        assert found["memsvc_rpc_seconds_count", "NOT_FOUND", "SessionService/GetSession"] == 1
        assert found["memsvc_log_fsync_seconds_count",] >= 1
        assert (found["memsvc_sessions", "writing"], found["memsvc_workers",], found["memsvc_ready",]) == (1, 1, 1)
        assert found["memsvc_process_open_fds",] > 0
        worker.steps(step("book", epoch, 9, 512, durability=types_pb2.DURABILITY_SYNC))
        assert worker.receive().ack.seq == 9
        assert watched.numbers()["memsvc_log_unsynced_bytes",] == 0
        worker.leave()


def test_nothing_is_shown_that_the_catalogue_lacks(tmp_path: Path) -> None:
    """Proves that a server at work shows exactly the documented metrics, and few series."""
    with _watched(tmp_path) as watched:
        worker, _ = _at_work(watched.stubs, "book")
        text = watched.page("/metrics")[1]
        shown = {line.split()[2] for line in text.splitlines() if line.startswith("# TYPE ")}
        assert shown == {own.name for own in (*METRICS, *PROCESS_METRICS)}
        worker.leave()


def test_pages_and_services_say_when_the_node_drains(tmp_path: Path) -> None:
    """Proves that a draining node lives and is not ready, over HTTP and gRPC alike, until it is gone."""
    with _watched(tmp_path) as watched:
        assert (watched.page("/livez"), watched.page("/readyz")) == ((200, "ok\n"), (200, "ok\n"))
        assert watched.page("/other")[0] == 404
        worker, _ = _at_work(watched.stubs, "book")
        health = health_pb2_grpc.HealthStub(watched.stubs.channel)
        watch = health.Watch(health_pb2.HealthCheckRequest(service="ready"), timeout=TIMEOUT_S)
        assert next(watch).status == health_pb2.HealthCheckResponse.SERVING
        watched.server.process.terminate()
        assert next(watch).status == health_pb2.HealthCheckResponse.NOT_SERVING
        assert watched.page("/livez") == (200, "ok\n")
        assert watched.page("/readyz") == (503, "draining: about to stop\n")
        live = health.Check(health_pb2.HealthCheckRequest(service="live"), timeout=TIMEOUT_S)
        assert live.status == health_pb2.HealthCheckResponse.SERVING
        worker.leave()
        assert watched.server.process.wait(TIMEOUT_S) == 0


class Gone:
    """A manifest that gives no answer."""

    def check(self) -> None:
        """No answer."""
        raise ManifestUnavailable("expected a manifest that answers, got canary")


def test_a_manifest_that_is_gone_makes_the_node_not_ready(tmp_path: Path) -> None:
    """Proves that trouble is noticed without a call, told without its details, and over when it is over."""
    settings = ServerSettings(
        tmp_path / "data",
        f"unix://{tmp_path}/socket",
        observe=ObserveSettings(http="127.0.0.1:0", health_interval_ms=10),
    )

    async def whole() -> None:
        server = await Server.start(settings)
        manifest = server._storage.manifest
        async with grpc.aio.insecure_channel(server.address) as channel:
            health = health_pb2_grpc.HealthStub(channel)
            watch = health.Watch(health_pb2.HealthCheckRequest(service="ready"), timeout=TIMEOUT_S)
            assert (await watch.read()).status == health_pb2.HealthCheckResponse.SERVING
            server._storage.manifest = Gone()
            assert (await watch.read()).status == health_pb2.HealthCheckResponse.NOT_SERVING
            expected = "manifest: expected one that answers, got MANIFEST_UNAVAILABLE\n"
            assert await asyncio.to_thread(_page, server.http_address, "/readyz") == (503, expected)
            graph = health_pb2.HealthCheckRequest(service="protos.memsvc.v1.GraphService")
            assert (await health.Check(graph, timeout=TIMEOUT_S)).status == health_pb2.HealthCheckResponse.SERVING
            server._storage.manifest = manifest
            assert (await watch.read()).status == health_pb2.HealthCheckResponse.SERVING
            watch.cancel()
        await server.drain()

    asyncio.run(whole())


def test_a_disk_that_refuses_an_fsync_is_told_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Proves that a session which takes no more writes ends what needs them, leaves reads, and is counted."""
    settings = ServerSettings(
        tmp_path / "data",
        f"unix://{tmp_path}/socket",
        timing=TimingSettings(sync_interval_ms=10),
        # Longer than the test: what is told is told because the fsync failed.
        observe=ObserveSettings(http="127.0.0.1:0", health_interval_ms=600_000),
    )

    def refused(descriptor: int) -> None:
        raise OSError(errno.EIO, "canary")

    async def whole() -> None:
        server = await Server.start(settings)
        async with grpc.aio.insecure_channel(server.address) as channel:
            health = health_pb2_grpc.HealthStub(channel)
            watch = health.Watch(health_pb2.HealthCheckRequest(service="ready"), timeout=TIMEOUT_S)
            assert (await watch.read()).status == health_pb2.HealthCheckResponse.SERVING
            monkeypatch.setattr(os, "fsync", refused)
            await asyncio.to_thread(_append_buffered, server._node.sessions, monkeypatch)
            assert (await watch.read()).status == health_pb2.HealthCheckResponse.NOT_SERVING
            expected = "writes: expected every session to take them, got 1 out of use: restart\n"
            assert await asyncio.to_thread(_page, server.http_address, "/readyz") == (503, expected)
            for service, status in (("MemoryService", "NOT_SERVING"), ("GraphService", "SERVING")):
                request = health_pb2.HealthCheckRequest(service=f"protos.memsvc.v1.{service}")
                answer = await health.Check(request, timeout=TIMEOUT_S)
                assert health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status) == status
            _, text = await asyncio.to_thread(_page, server.http_address, "/metrics")
            assert 'memsvc_sessions{state="failed"} 1.0' in text
            watch.cancel()
        with contextlib.suppress(StorageFailed):
            await server.drain()

    asyncio.run(whole())


def _append_buffered(sessions: Sessions, monkeypatch: pytest.MonkeyPatch) -> None:
    """A step that is not synced yet, made while the disk was well."""
    with monkeypatch.context() as well:
        well.setattr(os, "fsync", REAL_FSYNC)
        sessions.create("book", session_spec())
        request = session_pb2.OpenSessionRequest(
            session="book",
            mode=session_pb2.OPEN_MODE_WRITER,
            fingerprint=session_spec().fingerprint,
            worker="w",
            attachment="one",
        )
        sessions.open(request)
    attachment = sessions.attachment("one")
    message = Text(64).step(0, 64)
    message.attachment, message.epoch, message.seq = "one", attachment.epoch, 1
    attachment.session.apply(attachment, message)


def _lines(server: ServerProcess) -> tuple[str, list[dict[str, Any]]]:
    _, errors = server.process.communicate(timeout=TIMEOUT_S)
    return errors, [json.loads(line) for line in errors.splitlines()]


def test_no_payload_name_or_id_is_in_lines_or_numbers(tmp_path: Path) -> None:
    """Proves with canaries in names, block bytes, token ids and requests that logs and metrics repeat none of them."""
    with _watched(tmp_path, "--log-level", "debug", "--log-format", "json") as watched:
        worker, epoch = _at_work(watched.stubs, CANARY)
        ids = CANARY_ID.to_bytes(4, "little") * 64
        worker.steps(step(CANARY, epoch, 9, 512, ids=ids))
        assert worker.receive().ack.seq == 9
        worker.steps(step(CANARY, epoch, 10, 600, ids=ids), step(f"{CANARY}-none", epoch, 1, 0, ids=ids))
        assert [worker.receive().WhichOneof("message") for _ in range(2)] == ["fault", "fault"]
        data = (CANARY.encode() * 1000)[: len(block_data(0))]
        (answer,) = watched.stubs.blocks.PutBlocks(iter([put(CANARY, epoch, 5, data, crc32c=1)]), timeout=TIMEOUT_S)
        assert answer.reason == "CORRUPT_BLOCK"
        numbers = watched.page("/metrics")[1]
        worker.leave()
        watched.server.process.terminate()
        text, lines = _lines(watched.server)
    for told in (text, numbers):
        assert CANARY not in told
        assert str(CANARY_ID) not in told
        assert CANARY.encode().hex() not in told
    calls = {(line["method"], line["code"]) for line in lines if line["event"] == "call"}
    assert ("SessionService/OpenSession", "OK") in calls
    assert ("MemoryService/Attach", "OK") in calls
    (missing,) = (line for line in lines if line.get("code") == "NOT_FOUND" and line["event"] == "call")
    assert (missing["reason"], missing["session"]) == ("SESSION_NOT_FOUND", session_tag(f"{CANARY}-missing"))
    refused = [line["reason"] for line in lines if line["event"] == "refused"]
    told = {line["session"] for line in lines if line["event"] == "refused" and "session" in line}
    assert told == {session_tag(CANARY)}
    assert refused.count("CORRUPT_BLOCK") == 2
    assert {"STALE_EPOCH", "POSITION_OUT_OF_ORDER", "ATTACHMENT_NOT_FOUND"} <= set(refused)
    events = [line["event"] for line in lines if line["event"] != "library"]
    assert (events[0], events[-1]) == ("listening", "stopped")


def test_a_server_that_nobody_watches_serves_no_page_and_logs_no_call(tmp_path: Path) -> None:
    """Proves the defaults: no HTTP, and nothing on standard error while all is well."""
    with served(tmp_path) as server, connected(server.address) as stubs:
        created(stubs, "book")
        server.process.terminate()
        assert server.process.wait(TIMEOUT_S) == 0
        assert server.process.communicate(timeout=TIMEOUT_S) == ("", "")


def test_an_http_address_that_is_taken_stops_the_start(tmp_path: Path) -> None:
    """Proves that a server whose pages cannot be served does not run without them."""
    other_folder = tmp_path / "other"
    other_folder.mkdir()
    with _watched(tmp_path) as watched, served(other_folder, "--http", watched.http) as other:
        assert other.process.wait(TIMEOUT_S) == 1
        assert f"expected a free address, got {watched.http}" in other.process.communicate(timeout=TIMEOUT_S)[1]


def test_the_doctor_passes_a_server_and_its_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Proves both ways of asking against a real server, and what is said of the same folder once it is gone."""
    with served(tmp_path) as server:
        assert main(["doctor", "--memory", server.address, "--json"]) == 0
        answer = json.loads(capsys.readouterr().out)
        names = [check["name"] for check in answer["checks"] if check["state"] != "failed"]
        assert names == ["versions", "shared memory", "answers", "health", "sessions"]
        assert main(["doctor", "--data", str(tmp_path / "data")]) == 0
        assert f"process {server.process.pid} uses the folder" in capsys.readouterr().out
    assert main(["doctor", "--memory", server.address]) == 1
    assert "start it, or check address and credentials" in capsys.readouterr().out
