"""What a node notes, as Prometheus reads it."""

from prometheus_client.parser import text_string_to_metric_families

from memsvc.metrics import Figures
from memsvc.metrics.catalogue import METRICS, PROCESS_METRICS
from memsvc.metrics.prometheus import PrometheusMetrics

FIGURES = Figures(sessions={"writing": 2, "failed": 1}, unsynced_bytes=300, workers=4, ready=True)


def _samples(metrics: PrometheusMetrics, figures: Figures = FIGURES) -> dict[tuple[str, ...], float]:
    """Values by name and label values, in the order of the labels' names."""
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(metrics.render(figures).decode())
        for sample in family.samples
    }


def test_a_fresh_node_shows_exactly_the_catalogue() -> None:
    """Proves that every metric is there before anything happened, of its kind and with its text, and no other."""
    families = list(text_string_to_metric_families(PrometheusMetrics().render(FIGURES).decode()))
    shown = {(one.name + ("_total" if one.type == "counter" else ""), one.type, one.documentation) for one in families}
    assert shown == {(own.name, own.kind, own.help) for own in (*METRICS, *PROCESS_METRICS)}


def test_names_have_base_units_and_labels_have_no_callers_in_them() -> None:
    """Proves the naming rules: the prefix, `_total` on counters alone, seconds in histograms, no label of an id."""
    for own in (*METRICS, *PROCESS_METRICS):
        assert own.name.startswith("memsvc_")
        assert own.name.endswith("_total") == (own.kind == "counter")
        assert own.name.endswith("_seconds") == (own.kind == "histogram") or own.kind == "gauge"
        assert set(own.labels) <= {"method", "code", "finder", "outcome", "path", "reason", "state", "version"}


def test_each_event_is_noted_where_the_catalogue_says() -> None:
    """Proves the effect of every event on the numbers."""
    metrics = PrometheusMetrics()
    metrics.call_ended("SessionService/GetSession", "OK", 0.002)
    metrics.step_applied(0.01, tokens=64, bookmarks=7)
    metrics.step_applied(0.01, tokens=36, bookmarks=3)
    metrics.search_ended("flat", 0.004)
    metrics.recall_ended("late", 2.0)
    metrics.bytes_fetched("arena", 100)
    metrics.bytes_put("grpc", 50)
    metrics.log_synced(0.003)
    found = _samples(metrics)
    assert found["memsvc_rpc_seconds_count", "OK", "SessionService/GetSession"] == 1
    assert (found["memsvc_tokens_total",], found["memsvc_bookmarks_total",]) == (100, 10)
    assert found["memsvc_step_seconds_count",] == 2
    assert found["memsvc_search_seconds_count", "flat"] == 1
    assert (found["memsvc_recalls_total", "late"], found["memsvc_recalls_total", "answered"]) == (1, 0)
    assert found["memsvc_recall_seconds_sum",] == 2.0
    assert (found["memsvc_fetch_bytes_total", "arena"], found["memsvc_fetch_bytes_total", "grpc"]) == (100, 0)
    assert found["memsvc_put_bytes_total", "grpc"] == 50
    assert found["memsvc_log_fsync_seconds_count",] == 1


def test_errors_count_by_reason_and_stale_epochs_and_corruption_apart() -> None:
    """Proves what an error adds to: its reason always, two more counters for what an operator watches."""
    metrics = PrometheusMetrics()
    metrics.refused("STALE_EPOCH", "ABORTED")
    metrics.refused("CORRUPT_BLOCK", "DATA_LOSS")
    metrics.refused("INVALID_REQUEST", "INVALID_ARGUMENT")
    metrics.corruption_detected()
    found = _samples(metrics)
    reasons = {name[1]: value for name, value in found.items() if name[0] == "memsvc_errors_total"}
    assert reasons == {"STALE_EPOCH": 1, "CORRUPT_BLOCK": 1, "INVALID_REQUEST": 1}
    assert (found["memsvc_epoch_rejects_total",], found["memsvc_corruption_detected_total",]) == (1, 2)


def test_gauges_are_those_of_the_fetch() -> None:
    """Proves that what is looked up replaces what was, and that a state without sessions is 0."""
    metrics = PrometheusMetrics()
    _samples(metrics)
    found = _samples(metrics, Figures(sessions={"idle": 3}, unsynced_bytes=0, workers=0, ready=False))
    states = {name[1]: value for name, value in found.items() if name[0] == "memsvc_sessions"}
    assert states == {"writing": 0, "reading": 0, "idle": 3, "failed": 0}
    assert (found["memsvc_workers",], found["memsvc_ready",], found["memsvc_log_unsynced_bytes",]) == (0, 0, 0)


def test_two_nodes_of_one_process_count_apart() -> None:
    """Proves that numbers belong to a node, not to the process."""
    first, second = PrometheusMetrics(), PrometheusMetrics()
    first.step_applied(0.1, tokens=5, bookmarks=0)
    assert _samples(second)["memsvc_tokens_total",] == 0
