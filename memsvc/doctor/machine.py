"""Checks of the machine: what is installed, its shared memory, its limits.

Must not know: the data folder.
"""

import fcntl
import importlib.util
import os
import platform
import re
import resource
from importlib import metadata
from pathlib import Path

import memsvc
from memsvc.doctor.check import Check, State
from memsvc.settings import MIB, LimitSettings

SHARED_MEMORY = Path("/dev/shm")

_DISTRIBUTION = "bookmark-attention"
_PACKAGES = ("grpcio", "protobuf", "numpy", "google-crc32c", "msgpack", "grpcio-health-checking")
# As pip names them; the first that is installed counts.
_FAISS = ("faiss-cpu", "faiss-gpu", "faiss-gpu-cuvs")
_ARENAS = "attn-*"
# A few arenas of the client's default size.
_SHARED_FREE_MIN = 256 * MIB
# Log, newest segment, a segment that is read, a shard.
_FILES_A_SESSION = 4
_SESSIONS_OPEN = 64
_FILES_BESIDE = 64
_REQUIREMENT = re.compile(r"([A-Za-z0-9._-]+)[^;]*?>=\s*([0-9.]+)")


def machine_checks() -> list[Check]:
    """All of them."""
    return [versions(), finders(), shared_memory(), open_files()]


def versions() -> Check:
    """Whether the packages that a server needs are there, and new enough."""
    installed = {name: _version(name) for name in _PACKAGES}
    found = f"memsvc {memsvc.__version__}, Python {platform.python_version()}, " + ", ".join(
        f"{name} {version or 'missing'}" for name, version in installed.items()
    )
    least = _least_versions()
    old = [name for name, version in installed.items() if _parts(version or "0") < _parts(least.get(name, "0"))]
    if missing := [name for name, version in installed.items() if version is None] or old:
        return Check("versions", State.FAILED, found, f"install {', '.join(missing)}: pip install '{_extra('server')}'")
    return Check("versions", State.OK, found)


def finders() -> Check:
    """Which finder libraries there are; `flat`, `walk` and `dictionary` need none."""
    hnswlib = _version("hnswlib") if importlib.util.find_spec("hnswlib") else None
    faiss = next(filter(None, map(_version, _FAISS)), None) if importlib.util.find_spec("faiss") else None
    found = f"hnswlib {hnswlib or 'missing'}, faiss {faiss or 'missing'}"
    lacks = [extra for extra, version in (("server", hnswlib), ("faiss", faiss)) if version is None]
    if lacks:
        return Check(
            "finders",
            State.WARNING,
            found,
            f"sessions with a finder that is missing are refused: pip install '{_extra(','.join(lacks))}'",
        )
    return Check("finders", State.OK, found)


def shared_memory(folder: Path = SHARED_MEMORY) -> Check:
    """Whether workers on this machine can share memory with the server, and what dead ones left there."""
    name = "shared memory"
    if not os.access(folder, os.R_OK | os.W_OK | os.X_OK):
        return Check(name, State.WARNING, f"no {folder} to write to", "blocks travel as messages, which is slower")
    status = os.statvfs(folder)
    free = status.f_bavail * status.f_frsize
    left = [path for path in sorted(folder.glob(_ARENAS)) if _is_abandoned(path)]
    found = f"{_size(free)} free in {folder}, {len(left)} arenas left over"
    if left:
        return Check(name, State.WARNING, found, f"their owners are gone: rm {' '.join(map(str, left[:8]))}")
    if free < _SHARED_FREE_MIN:
        return Check(name, State.WARNING, found, f"make {folder} larger (a container: --shm-size=1g)")
    return Check(name, State.OK, found)


def open_files(limits: LimitSettings | None = None) -> Check:
    """Whether a server started from here may open as many files as its limits want."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = (limits or LimitSettings()).calls_max + _FILES_A_SESSION * _SESSIONS_OPEN + _FILES_BESIDE
    found = f"{soft} of at most {hard}, a busy node wants {wanted}"
    if soft != resource.RLIM_INFINITY and soft < wanted:
        return Check("open files", State.WARNING, found, f"ulimit -n {wanted}, before serve")
    return Check("open files", State.OK, found)


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _least_versions() -> dict[str, str]:
    """What this package declares that it needs; nothing where it runs without being installed."""
    try:
        declared = metadata.requires(_DISTRIBUTION) or []
    except metadata.PackageNotFoundError:
        return {}
    return {parts[1]: parts[2] for one in declared if (parts := _REQUIREMENT.match(one))}


def _parts(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version)[:3])


def _extra(names: str) -> str:
    return f"{_DISTRIBUTION}[{names}]"


def _is_abandoned(path: Path) -> bool:
    """Whether nobody holds the lock that an arena's owner holds for life."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        # Gone meanwhile, or another user's.
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(descriptor)
    return True


def _size(count: int) -> str:
    return f"{count / 2**30:.1f} GiB"
