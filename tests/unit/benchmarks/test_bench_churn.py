"""The benchmark of churn: what its sessions live through, and how their answers are compared."""

from pathlib import Path

import numpy as np
import pytest

from benchmarks.bench_churn import (
    STEP_TOKENS,
    ChurnedSession,
    Life,
    Lived,
    compared,
    live,
    load,
    main,
    rows_of,
    share_of,
)

TOKENS = 8 * STEP_TOKENS


def test_a_session_forgets_and_is_opened_anew_and_agrees_with_itself() -> None:
    """Proves on a small life with flat that blocks are forgotten and never recalled, that it is opened anew where it
    should be, that questions are answered in every round, and that the same life gives the same answers."""
    text, life = load(None, TOKENS, 3, 0), Life.of(4, 1)
    assert life.reopened == {2}
    lived, again = live("flat", text, life), live("flat", text, life)
    assert lived.answers == again.answers
    assert [len(own) for own in lived.answers] == [3] * 4
    assert all(answer for answers in lived.answers[1:] for answer in answers)
    assert lived.forgotten > 0
    assert len(lived.reopen_s) == 1
    row = compared("dictionary", again, lived)
    assert (row.agreement, row.agreement_worst, row.returned_forgotten) == (1.0, 1.0, 0)
    agreement, returned = rows_of(row, "command", 0)
    assert (agreement.value, agreement.goal, returned.goal) == (1.0, "at least 0.95", "exactly 0")


def test_void_tokens_leave_no_trace(tmp_path: Path) -> None:
    """Proves that a session which wrote on after its tail and was opened anew answers like one that never did."""
    text = load(None, TOKENS, 3, 0)
    answers = []
    for name, void in (("plain", False), ("void", True)):
        (tmp_path / name).mkdir()
        session = ChurnedSession(tmp_path / name, "flat")
        session.write(text.tokens)
        session.keep()
        if void:
            session.write(text.void)
        session.reopen()
        answers.append([session.ask(question) for question in text.questions])
        session.close()
    assert answers[0] == answers[1]


def test_agreement_is_of_what_flat_recalls() -> None:
    """Proves by hand that missing blocks count, further ones and order do not, and that the worst round is told."""
    assert share_of((1, 2, 9), (2, 1, 3, 4)) == 0.5
    assert share_of((1,), ()) == 1.0
    truth, own = (Lived(answers, 5, 1, 2.0, 3.0, ()) for answers in ((((1, 2),), ((3, 4),)), (((2, 1),), ((3, 5),))))
    measured = compared("hnsw", own, truth)
    assert (measured.agreement, measured.agreement_worst, measured.returned_forgotten) == (0.75, 0.5, 1)
    assert [row.holds for row in rows_of(measured, "command", 0)] == [False, False]


def test_rounds_that_do_not_fit_are_refused() -> None:
    """Proves that tokens which steps and rounds do not divide are an error of the command line."""
    with pytest.raises(SystemExit):
        main(["--tokens", "1000"])


def test_questions_are_whole_runs_of_tokens(tmp_path: Path) -> None:
    """Proves that real questions are neighbouring tokens, spread over all, and that too few vectors are refused."""
    codes = np.random.default_rng(0).integers(-127, 128, (TOKENS + STEP_TOKENS, 576)).astype(np.int8)
    asked = np.arange(40)[:, None] * np.ones((1, 576))
    scales = {"scale": np.ones(len(codes), np.float32), "query_scale": np.ones(40, np.float32)}
    np.savez(tmp_path / "own.npz", codes=codes, query_codes=asked.astype(np.int8), **scales)
    text = load(tmp_path / "own.npz", TOKENS, 3, 0)
    assert text.questions[:, :, 0].tolist() == [list(range(first, first + 16)) for first in (0, 12, 24)]
    assert (len(text.tokens), len(text.void)) == (TOKENS, STEP_TOKENS)
    with pytest.raises(SystemExit, match="expected"):
        load(tmp_path / "own.npz", TOKENS + 1, 3, 0)
