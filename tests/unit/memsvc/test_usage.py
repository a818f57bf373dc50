"""What a tenant keeps, counted from manifest and files."""

import os
from pathlib import Path

from memsvc.usage import usage_of
from tests import session_driver


def test_a_tenants_sessions_and_bytes_are_its_own(tmp_path: Path) -> None:
    """Proves that names and bytes are those of one tenant, whatever others are called, and that bytes are those of the
    files."""
    node = session_driver.Node(tmp_path / "data")
    for name in ("acme/a", "acme/b", "acme-2/c", "acme.d", "acme0/e", "f"):
        node.create(name=name)
    folders = {name: tmp_path / "data" / "sessions" / node.manifest.get(name).id for name in ("acme/a", "acme/b")}  # type: ignore[union-attr]
    (folders["acme/a"] / "blocks-000001.seg").write_bytes(bytes(1000))
    sizes = [file.stat().st_size for folder in folders.values() for file in folder.rglob("*") if file.is_file()]
    usage = usage_of(tmp_path / "data", node.manifest, "acme")
    assert (usage.names, usage.stored_bytes) == (frozenset(folders), sum(sizes))
    assert usage_of(tmp_path / "data", node.manifest, "nobody").names == frozenset()
    node.close()


def test_a_file_that_sessions_share_counts_once(tmp_path: Path) -> None:
    """Proves that a fork's hard links add nothing to what its tenant has."""
    node = session_driver.Node(tmp_path / "data")
    for name in ("acme/a", "acme/b"):
        node.create(name=name)
    first, second = (tmp_path / "data" / "sessions" / node.manifest.get(f"acme/{x}").id for x in "ab")  # type: ignore[union-attr]
    before = usage_of(tmp_path / "data", node.manifest, "acme").stored_bytes
    (first / "blocks-000009.seg").write_bytes(bytes(5000))
    os.link(first / "blocks-000009.seg", second / "blocks-000009.seg")
    assert usage_of(tmp_path / "data", node.manifest, "acme").stored_bytes == before + 5000
    node.close()
