"""Checks of a data folder: may it be written, is there room, how fast is its disk, does its manifest answer.

Invariants:
    Nothing in the folder is changed; a file of the check's own is made for the fsync, and gone again.
Must not know: gRPC.
"""

import fcntl
import os
import shutil
import socket
import sqlite3
import stat
import statistics
import tempfile
import time
from contextlib import closing
from pathlib import Path

from memsvc.doctor.check import Check, State
from memsvc.errors import InvalidRequest
from memsvc.manifest.address import RedisAddress

_FREE_FAILED_BYTES = 1 << 30
_FREE_WARNING_SHARE = 0.1
_FILES_FREE_MIN = 10_000
_FSYNCS = 9
_FSYNC_BYTES = 4096
_FSYNC_SLOW_S = 0.02
# Gone with the machine's memory, or with locks and fsyncs of their own kind.
_VOLATILE = ("tmpfs", "ramfs")
_REMOTE = ("nfs", "nfs4", "cifs", "smb3", "9p", "fuse.sshfs")
# Clocks of two machines that shared the folder may differ by so much.
_CLOCK_SLACK_S = 60.0
_REDIS_TIMEOUT_S = 2.0


def folder_checks(data: Path, manifest: str = "sqlite") -> list[Check]:
    """All of them.

    Args:
        manifest: As the server's setting.
    """
    checks = [permissions(data), disk(data), filesystem(data), fsync(data), node(data), clock(data), table(data)]
    return checks if manifest == "sqlite" else [*checks, redis(manifest)]


def permissions(data: Path) -> Check:
    """Whether this user may write it, and others may not read it."""
    there = _nearest(data)
    if not there.is_dir() or not os.access(there, os.R_OK | os.W_OK | os.X_OK):
        what = "a folder to write to"
        return Check("permissions", State.FAILED, f"expected {what}, got {there}", f"chown or chmod {there}")
    if there != data:
        return Check("permissions", State.OK, f"{data} is not there yet, {there} can be written")
    mode = stat.S_IMODE(data.stat().st_mode)
    if mode & 0o077:
        advice = f"other users may look in: chmod 700 {data}"
        return Check("permissions", State.WARNING, f"mode {mode:o} of {data}", advice)
    return Check("permissions", State.OK, f"mode {mode:o} of {data}")


def disk(data: Path) -> Check:
    """Whether there is room for more."""
    there = _nearest(data)
    usage, status = shutil.disk_usage(there), os.statvfs(there)
    found = f"{usage.free / 2**30:.1f} of {usage.total / 2**30:.1f} GiB free at {there}"
    if usage.free < _FREE_FAILED_BYTES:
        return Check("disk", State.FAILED, found, "make room, or move the folder: writes fail once it is full")
    if usage.free < _FREE_WARNING_SHARE * usage.total:
        return Check("disk", State.WARNING, found, "make room before it is full: writes fail then")
    # Filesystems that make inodes as they need them say 0 of 0.
    if status.f_files and status.f_favail < _FILES_FREE_MIN:
        return Check("disk", State.WARNING, f"{found}, {status.f_favail} more files", "delete files: inodes run out")
    return Check("disk", State.OK, found)


def filesystem(data: Path, mounts: Path = Path("/proc/self/mounts")) -> Check:
    """Whether what is stored survives the machine, and locks mean what they should."""
    kind = _filesystem_of(_nearest(data), mounts)
    if kind in _VOLATILE:
        return Check("filesystem", State.WARNING, kind, "sessions are gone with the machine's memory: use a disk")
    if kind in _REMOTE:
        advice = "locks and fsyncs over a network are not what the server relies on: use a local disk"
        return Check("filesystem", State.WARNING, kind, advice)
    return Check("filesystem", State.OK, kind)


def fsync(data: Path) -> Check:
    """How long a small write takes to survive power loss there."""
    there = _nearest(data)
    seconds = []
    try:
        with tempfile.TemporaryFile(dir=there) as file:
            for _ in range(_FSYNCS):
                file.write(bytes(_FSYNC_BYTES))
                file.flush()
                started_s = time.perf_counter()
                os.fsync(file.fileno())
                seconds.append(time.perf_counter() - started_s)
    except OSError as error:
        return Check("fsync", State.FAILED, f"{error.strerror} at {there}", "repair or replace the disk")
    median_s = statistics.median(seconds)
    found = f"median {1000 * median_s:.2f} ms, longest {1000 * max(seconds):.2f} ms"
    if median_s > _FSYNC_SLOW_S:
        return Check("fsync", State.WARNING, found, "each SYNC waits for one: use a local SSD")
    return Check("fsync", State.OK, found)


def node(data: Path) -> Check:
    """Whether a node uses the folder now; either is well."""
    try:
        descriptor = os.open(data / "lock", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return Check("node", State.OK, "none uses the folder, and none did")
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.pread(descriptor, 20, 0).decode("ascii", "replace").strip() or "unknown"
        return Check("node", State.OK, f"process {holder} uses the folder")
    finally:
        os.close(descriptor)
    return Check("node", State.OK, "none uses the folder now")


def clock(data: Path) -> Check:
    """Whether the wall clock is at least as late as what was written last."""
    written = [path.stat().st_mtime for path in (data, *data.glob("*"), *data.glob("sessions/*"))] if _is(data) else []
    behind_s = max(written, default=0.0) - time.time()
    now = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime())
    if behind_s > _CLOCK_SLACK_S:
        found = f"{now}, {behind_s:.0f} s before the newest file"
        return Check("clock", State.FAILED, found, "set the clock (NTP): retention and token expiry go by it")
    return Check("clock", State.OK, now)


def table(data: Path) -> Check:
    """Whether the manifest's own file can be read, and is whole."""
    path, sessions = data / "manifest.sqlite", data / "sessions"
    if not path.exists():
        if sessions.is_dir() and any(sessions.iterdir()):
            advice = f"memsvc repair --data {data}"
            return Check("manifest", State.FAILED, f"expected {path} beside the sessions, got none", advice)
        return Check("manifest", State.OK, "none yet")
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=1.0)) as connection:
            whole = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
            count = connection.execute("SELECT count(*) FROM sessions").fetchone()[0]
    except sqlite3.Error as error:
        return Check("manifest", State.FAILED, f"{error}, at {path}", f"memsvc repair --data {data}")
    if whole != "ok":
        return Check("manifest", State.FAILED, f"{whole}, at {path}", f"memsvc repair --data {data}")
    return Check("manifest", State.OK, f"{count} sessions in {path}")


def redis(manifest: str) -> Check:
    """Whether the Redis server of a manifest answers."""
    try:
        address = RedisAddress.parse(manifest)
    except InvalidRequest as error:
        return Check("redis", State.FAILED, str(error), "name it as `memsvc serve --manifest` takes it")
    advice = "start it, or open the way to it: no session opens meanwhile"
    try:
        place = (address.host, address.port)
        with socket.create_connection(place, timeout=_REDIS_TIMEOUT_S) as connection:
            connection.sendall(b"PING\r\n")
            answer = connection.recv(64)
    except OSError as error:
        return Check("redis", State.FAILED, f"{error.strerror or error}, at {address}", advice)
    if answer.strip() != b"+PONG":
        return Check("redis", State.FAILED, f"expected PONG, got {answer[:40]!r}, at {address}", advice)
    return Check("redis", State.OK, f"answers at {address}")


def _is(data: Path) -> bool:
    return data.is_dir() and os.access(data, os.R_OK | os.X_OK)


def _nearest(path: Path) -> Path:
    """The path itself, or the nearest above it that is there."""
    path = path.absolute()
    return next(one for one in (path, *path.parents) if one.exists())


def _filesystem_of(path: Path, mounts: Path) -> str:
    """Type of the filesystem that a path lies in."""
    best, kind = "", "unknown"
    for line in mounts.read_text().splitlines():
        _, place, found, *_ = line.split(" ")
        inside = path == Path(place) or Path(place) in path.parents
        if inside and len(place) >= len(best):
            best, kind = place, found
    return kind
