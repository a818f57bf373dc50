"""What pages load, and that it is pinned."""

import json
import re

from memsvc.inspector import assets
from tests.repo.sources import ROOT


def test_every_asset_comes_from_a_pinned_package() -> None:
    """Proves that package.json pins exact versions, and that each file lies in a package with a checksum."""
    wanted = json.loads((ROOT / "package.json").read_text())
    locked = json.loads((ROOT / "package-lock.json").read_text())["packages"]
    for name, version in {**wanted["dependencies"], **wanted["devDependencies"]}.items():
        assert re.fullmatch(r"\d+\.\d+\.\d+", version), name
        assert locked[f"node_modules/{name}"]["version"] == version
    for source in assets.FILES.values():
        package = "/".join(source.split("/")[: 2 if source.startswith("@") else 1])
        assert locked[f"node_modules/{package}"]["integrity"].startswith("sha512-")


def test_no_pin_names_where_it_was_fetched() -> None:
    """Proves that the lock file works with any registry."""
    assert '"resolved"' not in (ROOT / "package-lock.json").read_text()


def test_no_page_loads_anything_from_elsewhere() -> None:
    """Proves that templates, styles and scripts name no other host."""
    folder = ROOT / "memsvc" / "inspector"
    own = [*(folder / "templates").glob("*.html"), *(folder / "static").glob("*")]
    foreign = [
        path.name for path in own if re.search(r"(?:https?:)?//(?!www\.w3\.org)[a-z0-9-]+\.[a-z]", path.read_text())
    ]
    assert foreign == []
