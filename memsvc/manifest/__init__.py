"""The manifest: the small durable truth about which sessions there are, and who may write them."""

from memsvc.manifest.base import Manifest, SessionEntry
from memsvc.manifest.choice import check_manifest, open_manifest
from memsvc.manifest.sqlite import SqliteManifest

__all__ = ["Manifest", "SessionEntry", "SqliteManifest", "check_manifest", "open_manifest"]
