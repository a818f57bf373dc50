"""The bundle for a machine without registries: what was split comes together, and damage is named."""

from pathlib import Path

import pytest

from benchmarks import device_bundle


@pytest.fixture
def bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A bundle of a made-up model of 25 bytes in parts of 16."""
    monkeypatch.setattr(device_bundle, "PART_BYTES", 16)
    weights = tmp_path / "model.gguf"
    weights.write_bytes(bytes(range(25)))
    device_bundle.write_manifest(tmp_path / "bundle", weights)
    return tmp_path / "bundle"


def test_a_model_is_split_and_joined(bundle: Path, tmp_path: Path) -> None:
    """Proves that parts keep to their size and come together as they were, in a package that can be found."""
    assert [path.stat().st_size for path in sorted(bundle.rglob("*.part*"))] == [16, 9]
    assert device_bundle.main(["join", str(bundle), str(tmp_path / "site")]) == 0
    package = tmp_path / "site" / device_bundle.MODEL_PACKAGE
    assert (package / "model.gguf").read_bytes() == bytes(range(25))
    assert (package / "__init__.py").is_file()


@pytest.mark.parametrize("damage", ["changed", "missing"])
def test_a_damaged_part_is_one_line(
    bundle: Path, tmp_path: Path, damage: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Proves that joining stops at a part that changed or did not arrive, and names it."""
    part = bundle / "2" / "model.gguf.part2"
    if damage == "changed":
        part.write_bytes(bytes(9))
    else:
        part.unlink()
    assert device_bundle.main(["join", str(bundle), str(tmp_path / "site")]) == 1
    said = capsys.readouterr().err
    assert said.startswith("expected SHA-256 ")
    assert said.endswith("of bundle/2/model.gguf.part2\n")
    assert not (tmp_path / "site").exists()


def test_a_folder_without_a_manifest_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Proves that a wrong folder is refused before anything is written."""
    assert device_bundle.main(["join", str(tmp_path), str(tmp_path / "site")]) == 1
    assert capsys.readouterr().err.count("\n") == 1


def test_a_model_of_too_many_parts_is_refused(tmp_path: Path, bundle: Path) -> None:
    """Proves that what two calls cannot carry is said at once."""
    weights = tmp_path / "large.gguf"
    weights.write_bytes(bytes(33))
    with pytest.raises(device_bundle.BundleError, match=r"at most 32 bytes, got 33 in large\.gguf"):
        device_bundle.write_manifest(bundle, weights)
