"""The table of coverage and recall: its intervals, cases and sums."""

import subprocess
import sys

import pytest

from benchmarks.coverage_recall import POLICIES, Case, cases, points, table, wilson
from benchmarks.recall_of_trace import Found, Outcome
from memsvc.policy import make_policy


def test_wilson_intervals_are_those_of_the_textbook() -> None:
    """Proves three known intervals: all, none and half of what was counted."""
    # z2 / (n + z2) with z2 = 3.841459 and n = 10.
    assert wilson(10, 10) == pytest.approx((0.722467, 1.0), abs=1e-5)
    assert wilson(0, 10) == pytest.approx((0.0, 0.277533), abs=1e-5)
    assert wilson(100, 200) == pytest.approx((0.431361, 0.568639), abs=1e-5)


def test_every_case_makes_a_policy() -> None:
    """Proves that each policy at each coverage is one that a session accepts, and `every` stands for 100 %."""
    found = cases(POLICIES, (0.02, 0.05, 0.1, 0.2, 1.0))
    assert len(found) == len(set(found)) == 9 * 4 + 1
    assert [case for case in found if case.coverage == 1] == [Case("every", 1.0)]
    for case in found:
        make_policy(case.spec)


def test_outcomes_of_several_traces_are_added() -> None:
    """Proves that facts of a kind are counted over all traces, and shares are averaged."""
    case = Case("fixed", 0.1)
    first = Outcome(0.1, 0.2, 1.0, (Found("plain", True, True, True), Found("names", False, False, True)))
    second = Outcome(0.2, 0.2, 0.5, (Found("plain", False, True, True),))
    names, plain = points([(case, first), (case, second)])
    assert (names.kind, names.facts, names.whole, names.top_16, names.share) == ("names", 1, 0, 1, 0.1)
    assert (plain.kind, plain.facts, plain.whole, plain.rank_1) == ("plain", 2, 1, 2)
    assert (plain.share, plain.cold_share, plain.reachable) == pytest.approx((0.15, 0.2, 0.75))
    assert plain.as_json()["rates"]["whole"]["rate"] == 0.5
    assert table([names, plain]).splitlines()[2].split()[:3] == ["plain", "fixed", "0.10"]


def test_recall_is_measured_without_compiled_finders() -> None:
    """Proves that a machine without hnswlib and FAISS can measure: only a session that asks for them imports them."""
    blocked = "import sys; sys.modules['hnswlib'] = sys.modules['faiss'] = None; import benchmarks.coverage_recall"
    done = subprocess.run([sys.executable, "-c", blocked], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
