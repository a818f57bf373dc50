"""The committed stubs are what the .proto files give."""

import os
import subprocess
import sys
from pathlib import Path

from tests.repo.sources import ROOT

PROTOS = ROOT / "protos" / "memsvc" / "v1"


def _generate(folder: Path) -> dict[str, bytes]:
    """Stubs by file name, made by what `make protos` runs."""
    sources = [path.relative_to(ROOT).as_posix() for path in sorted(PROTOS.glob("*.proto"))]
    outs = [f"--python_out={folder}", f"--grpc_python_out={folder}"]
    outs += [f"--mypy_out=quiet:{folder}", f"--mypy_grpc_out=quiet:{folder}"]
    # The plugins are programs beside this interpreter.
    path = os.pathsep.join((str(Path(sys.executable).parent), os.environ.get("PATH", "")))
    subprocess.run(
        [sys.executable, "-m", "grpc_tools.protoc", "-I", ".", *outs, *sources],
        cwd=ROOT,
        env={**os.environ, "PATH": path},
        check=True,
    )
    return _stubs(folder / "protos" / "memsvc" / "v1")


def _stubs(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if "_pb2" in path.name}


def test_the_stubs_are_generated_from_the_protos(tmp_path: Path) -> None:
    """Proves that generating again gives the committed bytes: none is stale, missing, left over or edited."""
    generated, committed = _generate(tmp_path), _stubs(PROTOS)
    differing = sorted(
        name for name in generated.keys() | committed.keys() if generated.get(name) != committed.get(name)
    )
    assert differing == [], "run `make protos`"
