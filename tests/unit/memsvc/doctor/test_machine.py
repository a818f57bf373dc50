"""Checks of the machine."""

import dataclasses
import fcntl
import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from memsvc.doctor import State, machine, worst
from memsvc.doctor.check import Check
from memsvc.settings import LimitSettings


@contextmanager
def _open_files(soft: int) -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_what_a_server_needs_is_installed_here_and_named() -> None:
    """Proves that the check passes in a complete installation, and shows the versions it saw."""
    check = machine.versions()
    assert check.state is State.OK
    assert "grpcio 1." in check.found
    assert "protobuf 7." in check.found


@pytest.mark.parametrize("version", [None, "1.2.3"])
def test_a_package_that_is_missing_or_old_is_a_failure(version: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Proves that a package below what is declared fails as one that is not there, with what to install."""
    known = machine._version
    monkeypatch.setattr(machine, "_version", lambda name: version if name == "grpcio" else known(name))
    check = machine.versions()
    assert (check.state, "install grpcio: pip install" in check.advice) == (State.FAILED, True)


def test_a_finder_that_is_missing_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    """Proves that a node without FAISS is told which extra brings it, and may run."""
    known = machine._version
    monkeypatch.setattr(machine, "_version", lambda name: None if name.startswith("faiss") else known(name))
    check = machine.finders()
    assert (check.state, "faiss missing" in check.found) == (State.WARNING, True)
    assert check.advice.endswith("pip install 'bookmark-attention[faiss]'")


def test_an_arena_without_an_owner_is_told_apart_from_a_living_ones(tmp_path: Path) -> None:
    """Proves that an arena is left over exactly when nobody holds its lock."""
    for name in ("attn-1-dead", "attn-2-living", "other"):
        (tmp_path / name).write_bytes(b"")
    with (tmp_path / "attn-2-living").open() as owner:
        fcntl.flock(owner, fcntl.LOCK_EX)
        check = machine.shared_memory(tmp_path)
    assert check.state is State.WARNING
    assert check.found.endswith("1 arenas left over")
    assert check.advice == f"their owners are gone: rm {tmp_path}/attn-1-dead"
    assert sorted(os.listdir(tmp_path)) == ["attn-1-dead", "attn-2-living", "other"]


def test_no_shared_memory_is_a_warning(tmp_path: Path) -> None:
    """Proves that a machine without the folder is told that blocks travel otherwise."""
    assert machine.shared_memory(tmp_path / "none").state is State.WARNING


def test_too_few_open_files_are_a_warning_with_the_number_to_set() -> None:
    """Proves that the limit is compared with what the settings let in."""
    limits = dataclasses.replace(LimitSettings(), calls_max=100)
    with _open_files(419):
        check = machine.open_files(limits)
    assert (check.state, check.advice) == (State.WARNING, "ulimit -n 420, before serve")
    with _open_files(420):
        assert machine.open_files(limits).state is State.OK


def test_the_worst_of_checks_counts() -> None:
    """Proves the order of states, and that none is well."""
    checks = [Check("a", State.OK, ""), Check("b", State.WARNING, ""), Check("c", State.FAILED, "")]
    assert [worst(checks[:count]) for count in range(4)] == [State.OK, State.OK, State.WARNING, State.FAILED]
