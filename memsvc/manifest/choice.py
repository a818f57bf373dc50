"""Opens the manifest that the settings name."""

from pathlib import Path

from memsvc.errors import ManifestUnavailable
from memsvc.manifest.address import RedisAddress
from memsvc.manifest.base import Manifest
from memsvc.manifest.sqlite import SqliteManifest

SQLITE = "sqlite"


def check_manifest(named: str) -> None:
    """Raises InvalidRequest (INVALID_SETTING) for what names no manifest."""
    if named != SQLITE:
        RedisAddress.parse(named)


def open_manifest(data: Path, named: str) -> Manifest:
    """The manifest of the node at `data`, whose folder lock the caller holds; may take twice a lease's time.

    Args:
        named: What passes `check_manifest`.

    Raises:
        ManifestUnavailable: It cannot be opened, or Redis does not answer or lacks its package.
    """
    if named == SQLITE:
        return SqliteManifest(data / "manifest.sqlite")
    try:
        # Here, because only who asks for it needs the package.
        from memsvc.manifest.redis import RedisManifest
    except ModuleNotFoundError as error:
        raise ManifestUnavailable(f"expected the extra 'redis' installed for {named}, got no {error.name}") from error
    return RedisManifest(data, RedisAddress.parse(named))
