"""Which manifest a name opens."""

import sys
from pathlib import Path

import pytest

from memsvc.errors import ManifestUnavailable
from memsvc.manifest import SqliteManifest, open_manifest


def test_sqlite_is_a_file_in_the_data_folder(tmp_path: Path) -> None:
    """Proves what the default opens, and where."""
    manifest = open_manifest(tmp_path, "sqlite")
    assert isinstance(manifest, SqliteManifest)
    manifest.close()
    assert (tmp_path / "manifest.sqlite").exists()


def test_redis_is_asked_for_where_it_is_named(tmp_path: Path) -> None:
    """Proves that the address is tried, and named when nobody answers there."""
    with pytest.raises(ManifestUnavailable, match=r"at redis://127\.0\.0\.1:1/3"):
        open_manifest(tmp_path, "redis://127.0.0.1:1/3")


def test_a_missing_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Proves that without the extra a server says what to install, before it opens anything."""
    monkeypatch.setitem(sys.modules, "memsvc.manifest.redis", None)
    with pytest.raises(ManifestUnavailable, match="expected the extra 'redis' installed for redis://h:1/0, got no"):
        open_manifest(tmp_path, "redis://h:1/0")
    assert list(tmp_path.iterdir()) == []
