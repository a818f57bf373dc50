"""What a server or a torch-free client loads: nothing heavy, and nothing that acts on import."""

import subprocess
import sys

import pytest

from tests.repo.sources import ROOT

# Imports a package and everything in it, then says what that has loaded, started or changed.
REPORT = """
import importlib, os, pkgutil, sys, threading
before = dict(os.environ)
for name in sys.argv[1:]:
    found = importlib.import_module(name)
    for module in pkgutil.walk_packages(getattr(found, "__path__", ()), name + "."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
heavy = {"torch", "transformers", "triton", "accelerate", "attn_kernels"}
print(sorted(heavy & sys.modules.keys()), threading.active_count(), dict(os.environ) == before)
"""


@pytest.mark.parametrize("package", ["memsvc", "attn_client.memory", "attn_client.embedded", "protos"])
def test_importing_loads_no_model_library(package: str) -> None:
    """Proves in a fresh interpreter that the package and all below it load no torch and start no thread."""
    told = subprocess.run(
        [sys.executable, "-c", REPORT, package], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert told.returncode == 0, told.stderr
    assert told.stdout == "[] 1 True\n"
