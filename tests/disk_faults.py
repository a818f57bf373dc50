"""Disks that refuse: what tests do to real files."""

import errno
import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager

import pytest


@contextmanager
def files_end_at(size_bytes: int) -> Iterator[None]:
    """No file of this process grows past `size_bytes`: a write over it is cut short there, one past it refused."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@contextmanager
def fsync_fails(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Every fsync ends in an I/O error."""

    def refuse(descriptor: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", refuse)
        yield
