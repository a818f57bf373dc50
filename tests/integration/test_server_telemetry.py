"""A server that sends its numbers and spans to an OpenTelemetry collector: a real one, as far as it listens."""

from collections.abc import Iterator
from concurrent import futures
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import pytest
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2, metrics_service_pb2_grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc

from memsvc.cli import main
from memsvc.metrics.catalogue import METRICS
from tests.integration.server_process import Worker, connected, created, recall, served, step

CANARY = "canary-5b1e"


@dataclass
class Collector:
    """What came, and where it listens."""

    address: str = ""
    traces: list[Any] = field(default_factory=list)
    metrics: list[Any] = field(default_factory=list)

    def spans(self) -> list[Any]:
        """All spans that came."""
        scopes = [scope for one in self.traces for own in one.resource_spans for scope in own.scope_spans]
        return [span for scope in scopes for span in scope.spans]

    def newest(self) -> dict[str, Any]:
        """The newest metrics by name."""
        own = self.metrics[-1].resource_metrics
        return {metric.name: metric for one in own for scope in one.scope_metrics for metric in scope.metrics}


class _Traces(trace_service_pb2_grpc.TraceServiceServicer):
    def __init__(self, collector: Collector) -> None:
        self._collector = collector

    def Export(self, request: Any, context: Any) -> Any:
        self._collector.traces.append(request)
        return trace_service_pb2.ExportTraceServiceResponse()


class _Metrics(metrics_service_pb2_grpc.MetricsServiceServicer):
    def __init__(self, collector: Collector) -> None:
        self._collector = collector

    def Export(self, request: Any, context: Any) -> Any:
        self._collector.metrics.append(request)
        return metrics_service_pb2.ExportMetricsServiceResponse()


@pytest.fixture
def collector() -> Iterator[Collector]:
    """A collector on a free port."""
    server, own = grpc.server(futures.ThreadPoolExecutor(2)), Collector()
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(_Traces(own), server)
    metrics_service_pb2_grpc.add_MetricsServiceServicer_to_server(_Metrics(own), server)
    own.address = f"http://127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    yield own
    server.stop(0)


def _work(folder: Path, *arguments: str) -> int:
    """Eight steps and a recall in a session named by a canary; exit code of the server."""
    with served(folder, *arguments) as server, connected(server.address) as stubs:
        created(stubs, CANARY)
        worker = Worker(stubs, CANARY)
        worker.receive()
        epoch = worker.open(CANARY, CANARY).epoch
        worker.steps(*(step(CANARY, epoch, 1 + at, 64 * at) for at in range(7)))
        worker.steps(step(CANARY, epoch, 8, 448, recall=recall(blocks_through=0)))
        assert [worker.receive().WhichOneof("message") for _ in range(9)] == ["ack"] * 8 + ["recall"]
        worker.leave()
        return server.stop()


def test_a_collector_gets_numbers_and_spans_of_what_was_done(collector: Collector, tmp_path: Path) -> None:
    """Proves that all is sent by the time the server has ended: counts that are right, spans that took time."""
    assert _work(tmp_path, "--otlp", collector.address) == 0
    found = collector.newest()
    assert set(found) <= {own.name for own in METRICS}
    assert found["memsvc_tokens_total"].sum.data_points[0].as_int == 512
    assert found["memsvc_step_seconds"].histogram.data_points[0].count == 8
    spans = collector.spans()
    names = [span.name for span in spans]
    assert names.count("memsvc.step") == 8
    assert names.count("memsvc.recall") == 1
    assert all(span.end_time_unix_nano >= span.start_time_unix_nano for span in spans)
    methods = {own.value.string_value for span in spans for own in span.attributes if own.key == "method"}
    assert {"SessionService/CreateSession", "MemoryService/Attach"} <= methods


def test_nothing_of_a_session_is_sent(collector: Collector, tmp_path: Path) -> None:
    """Proves that neither a session's name nor a worker's leaves by this way."""
    _work(tmp_path, "--otlp", collector.address)
    sent = b"".join(one.SerializeToString() for one in (*collector.traces, *collector.metrics))
    assert b"memsvc" in sent
    assert CANARY.encode() not in sent


def test_a_collector_that_is_not_there_hinders_nothing(tmp_path: Path) -> None:
    """Proves that work is done, and the server ends in order and in time, with nobody listening."""
    assert _work(tmp_path, "--otlp", "http://127.0.0.1:9", "--http", "127.0.0.1:0") == 0


@pytest.mark.parametrize("value", ["127.0.0.1:4317", "udp://127.0.0.1:4317", "http://127.0.0.1"])
def test_an_endpoint_of_another_form_is_refused_in_one_line(
    value: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Proves that the setting is named, with what it should be and what it is."""
    assert main(["serve", "--data", str(tmp_path / "data"), "--listen", f"unix://{tmp_path}/s", "--otlp", value]) == 2
    told = capsys.readouterr().err.strip().splitlines()
    assert len(told) == 1
    assert "otlp" in told[0]
