"""Numbers of a metrics page, read back: rates and durations between two looks."""

import pytest

from memsvc.metrics import Figures
from memsvc.metrics.prometheus import PrometheusMetrics
from memsvc.metrics.reading import Numbers, Stretch

FIGURES = Figures(sessions={"writing": 2}, unsynced_bytes=17, workers=3, ready=True)


def _look(metrics: PrometheusMetrics, at_s: float) -> Numbers:
    return Numbers.parse(metrics.render(FIGURES).decode(), at_s)


def test_gauges_are_read_as_they_were_shown() -> None:
    """Proves that a server's page comes back with names, labels and values."""
    numbers = _look(PrometheusMetrics(), 1.0)
    assert numbers.get("memsvc_workers") == 3.0
    assert numbers.get("memsvc_sessions", state="writing") == 2.0
    assert numbers.get("memsvc_sessions", state="failed") == 0.0
    assert numbers.get("memsvc_no_such") == 0.0
    assert list(numbers.labelled("memsvc_sessions", "state")) == ["failed", "idle", "reading", "writing"]


def test_a_rate_is_the_rise_over_the_stretch() -> None:
    """Proves that what was counted before the first look is not counted again."""
    metrics = PrometheusMetrics()
    metrics.bytes_fetched("arena", 100)
    before = _look(metrics, 10.0)
    metrics.bytes_fetched("arena", 40)
    metrics.bytes_fetched("grpc", 10)
    stretch = Stretch(before, _look(metrics, 12.0))
    assert stretch.rate("memsvc_fetch_bytes_total") == pytest.approx(25.0)
    assert stretch.rate("memsvc_fetch_bytes_total", path="arena") == pytest.approx(20.0)


def test_a_server_that_started_again_has_no_negative_rate() -> None:
    """Proves that counters which begin at 0 again are not shown as a fall."""
    metrics = PrometheusMetrics()
    metrics.bytes_put("grpc", 100)
    stretch = Stretch(_look(metrics, 0.0), _look(PrometheusMetrics(), 1.0))
    assert stretch.rate("memsvc_put_bytes_total") == 0.0
    assert stretch.times("memsvc_step_seconds").half_s is None


def test_durations_are_those_of_the_stretch_within_a_bucket() -> None:
    """Proves that half and 99 of 100 lie in the buckets that the durations fell in, and split by label."""
    metrics = PrometheusMetrics()
    for _ in range(1000):
        metrics.search_ended("flat", 20.0)
    before = _look(metrics, 0.0)
    for _ in range(90):
        metrics.search_ended("flat", 0.004)
    for _ in range(10):
        metrics.search_ended("hnsw", 0.2)
    stretch = Stretch(before, _look(metrics, 10.0))
    whole, hnsw = stretch.times("memsvc_search_seconds"), stretch.times("memsvc_search_seconds", finder="hnsw")
    assert whole.per_s == pytest.approx(10.0)
    assert whole.half_s is not None
    assert whole.most_s is not None
    assert 0.0025 < whole.half_s <= 0.005
    assert 0.1 < whole.most_s <= 0.25
    assert hnsw.per_s == pytest.approx(1.0)
    assert hnsw.half_s is not None
    assert 0.1 < hnsw.half_s <= 0.25


def test_a_duration_past_the_last_bucket_is_said_to_be_its_end() -> None:
    """Proves that there is no infinity in the table."""
    metrics = PrometheusMetrics()
    before = _look(metrics, 0.0)
    metrics.log_synced(1000.0)
    assert Stretch(before, _look(metrics, 1.0)).times("memsvc_log_fsync_seconds").most_s == 30.0


def test_a_page_that_is_no_page_of_numbers_is_refused() -> None:
    """Proves that a wrong address is told as such."""
    with pytest.raises(ValueError):
        Numbers.parse("<html>hello</html>\n", 0.0)
