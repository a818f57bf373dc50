"""Podman where there is no Docker: its packages, settings for a machine that grants little, and images from nothing.

No image is pulled. The base comes from `debootstrap` under the name that the Dockerfile asks for; Redis and Prometheus
are Debian's, under the names that the compose file asks for. All of it is kept in `.cache/compose`: it is done once.
"""

import os
import shutil
import subprocess
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path

from tests.compose.containers import Engine, finished
from tests.compose.steps import StepFailed, Steps

PACKAGES = ("podman", "buildah", "runc", "netavark", "aardvark-dns", "iptables", "debootstrap")
_PROGRAMS = ("podman", "buildah", "runc", "iptables", "debootstrap", "/usr/lib/podman/netavark")
_BASE = "docker.io/library/python:3.11-slim-bookworm"
_BASE_PACKAGES = ("ca-certificates", "python3", "python3-dev", "python3-pip", "python3-venv")
# Image that the compose file asks for, and what stands in for it.
STAND_INS = {
    "docker.io/library/redis:7-bookworm": "redis.Dockerfile",
    "docker.io/prom/prometheus:v2.55.1": "prometheus.Dockerfile",
}
_FOLDER = Path(__file__).parent / "stand_ins"


def podman(root: Path, steps: Steps) -> Engine:
    """An engine that works here, with its base images. Raises StepFailed where something it needs cannot be had."""
    cache = root / ".cache" / "compose"
    with steps.step("packages of the container engine"):
        _install()
    compose = Path(sys.executable).with_name("podman-compose")
    if not compose.exists():
        raise StepFailed(f"expected podman-compose beside {sys.executable}, got none: make setup")
    engine = Engine("podman", (str(compose),), _configured(cache, root))
    with steps.step(f"base image {_BASE}, by debootstrap"):
        _base(engine, cache / "base")
    for name, file in STAND_INS.items():
        with steps.step(f"image {name}, of Debian's package"):
            _build(engine, "-f", str(_FOLDER / file), "-t", name, str(_FOLDER))
    return engine


def build(engine: Engine, root: Path, target: str, image: str) -> None:
    """Build a target of the Dockerfile, with this machine's settings of pip."""
    cache = root / ".cache" / "compose"
    mounts = [argument for mount in _pip_mounts(cache) for argument in ("-v", f"{mount}:ro")]
    _build(engine, *mounts, "--target", target, "-t", image, str(root))


def let_go(root: Path) -> None:
    """Give back what keeps `.cache` from being deleted: Podman mounts a folder of its storage on itself."""
    storage = root / ".cache" / "compose" / "storage" / "overlay"
    # Nothing is mounted where nothing ran.
    subprocess.run(["umount", "-q", str(storage)], capture_output=True, check=False)


def _build(engine: Engine, *arguments: str) -> None:
    # A build needs the network of the machine, and runs where namespaces are not granted, too.
    finished(["buildah", "bud", "--isolation", "chroot", "--network", "host", "--layers", *arguments], engine.env)


def _install() -> None:
    if all(shutil.which(program) for program in _PROGRAMS):
        return
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        raise StepFailed(f"expected Docker with its compose plugin, or Debian's {' '.join(PACKAGES)}, got neither")
    quiet = {"DEBIAN_FRONTEND": "noninteractive"}
    finished(["apt-get", "update", "-qq"], quiet)
    finished(["apt-get", "install", "-y", "-qq", "--no-install-recommends", *PACKAGES], quiet)


def _configured(cache: Path, root: Path) -> dict[str, str]:
    """Settings in files of their own: nothing of the machine's own containers is touched."""
    cache.mkdir(parents=True, exist_ok=True)
    # Sockets lie there, whose paths must be short.
    run = Path("/run") / f"bookmark-compose-{zlib.crc32(str(root).encode()):08x}"
    containers = f"""[containers]
# As low as a machine that lets nobody raise them has them.
default_ulimits = ["nofile=1024:1024", "nproc=4096:4096"]
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "file"
tmp_dir = "{run}/libpod"
[network]
network_backend = "netavark"
network_config_dir = "{cache}/networks"
"""
    storage = f"""[storage]
driver = "overlay"
graphroot = "{cache}/storage"
runroot = "{run}/storage"
"""
    (cache / "containers.conf").write_text(containers)
    (cache / "storage.conf").write_text(storage)
    return {
        "CONTAINERS_CONF": str(cache / "containers.conf"),
        "CONTAINERS_STORAGE_CONF": str(cache / "storage.conf"),
    }


def _base(engine: Engine, folder: Path) -> None:
    if engine.run("image", "exists", _BASE, check=False).returncode == 0:
        return
    shutil.rmtree(folder, ignore_errors=True)
    try:
        include = f"--include={','.join(_BASE_PACKAGES)}"
        finished(["debootstrap", "--variant=minbase", include, "bookworm", str(folder)], {})
        for package in (folder / "var/cache/apt/archives").glob("*.deb"):
            package.unlink()
        with subprocess.Popen(["tar", "-C", str(folder), "-c", "."], stdout=subprocess.PIPE) as packed:
            loaded = subprocess.run(
                ["podman", "import", "-q", "-", _BASE],
                env={**os.environ, **engine.env},
                stdin=packed.stdout,
                capture_output=True,
                text=True,
                check=False,
            )
        if packed.returncode or loaded.returncode:
            raise StepFailed(f"expected to import {folder}, got: {loaded.stderr.strip()}")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _pip_mounts(cache: Path) -> Iterator[str]:
    """What a build must see to install what this machine's pip does: its settings, and the paths that they name."""
    listed = finished([sys.executable, "-m", "pip", "config", "list"], {}).stdout.splitlines()
    # A line is section.name='value'; of a variable of the environment, :env:.name='value'.
    named = (line.partition("=") for line in listed)
    settings = {name.rpartition(".")[2]: value.strip("'\"").replace("\\n", " ") for name, _, value in named}
    # Pins are the Dockerfile's own.
    kept = {name: value for name, value in settings.items() if "constraint" not in name}
    file = cache / "pip.conf"
    file.write_text("\n".join(["[global]", *(f"{name} = {value}" for name, value in kept.items()), ""]))
    yield f"{file}:/etc/pip.conf"
    paths = {path for value in kept.values() for path in _paths(value)}
    certificates = Path("/etc/ssl/certs")
    for path in sorted(paths | {certificates}):
        if path.is_dir() and not (path != certificates and path.is_relative_to(certificates)):
            yield f"{path}:{path}"


def _paths(value: str) -> Iterator[Path]:
    for word in value.split():
        if word.startswith("file://"):
            # An index names its files beside it.
            yield Path(word.removeprefix("file://")).parent
        elif word.startswith("/"):
            yield Path(word)
