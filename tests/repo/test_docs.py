"""Documents name only what exists, and all that has to be named."""

import dataclasses
import importlib
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from types import ModuleType
from typing import Any

import pytest

import memsvc
from tests.repo.sources import ROOT, python, texts

# Documents whose every word is about the tree as it is; the log and the decisions also tell what was.
PRESENT = (
    "README.md",
    "docs/ARCHITECTURE.md",
    "docs/SETTINGS.md",
    "docs/ACCESS.md",
    "docs/GLOSSARY.md",
    "docs/OPERATIONS.md",
    "docs/DURABILITY.md",
    "docs/FAULTS.md",
    "docs/INSPECTOR.md",
    "docs/WORKER.md",
    "docs/COMPOSE.md",
    "docs/CLI.md",
)
SETTINGS = ("memsvc.settings", "attn_client.settings", "attn_client.memory.settings")
PROGRAMS = {"memsvc": "memsvc.cli", "attn-client": "attn_client.cli"}

CODE_SPAN = re.compile(r"```[a-z]*\n(.*?)```|`([^`\n]+)`", re.DOTALL)
LINK = re.compile(r"\]\(([^)#:\s]+)(?:#[^)]*)?\)")
MAKE = re.compile(r"\bmake ([a-z][a-z-]*)")
COMMAND = re.compile(r"(?:^|/|\s)(memsvc|attn-client) ([a-z|]+)((?:[^\n\\]|\\\n)*)")
FLAG = re.compile(r"(?<![\w-])--[a-z][a-z-]+")
GLOSSARY_ROW = re.compile(r"^\| ([^|]+) \|", re.MULTILINE)
SETTINGS_ROW = re.compile(r"^\| `(\w+)` \| ([^|]+) \|", re.MULTILINE)


def _code(document: str) -> Iterator[str]:
    """What stands in code spans and code blocks."""
    for block, span in CODE_SPAN.findall((ROOT / document).read_text()):
        yield block or span


def _top_names() -> frozenset[str]:
    return frozenset(path.name for path in ROOT.iterdir() if not path.name.startswith(".git"))


@cache
def _help(program: str, command: str = "") -> str:
    """What a command line says of itself."""
    call = f"import sys; from {PROGRAMS[program]} import main; sys.exit(main(sys.argv[1:]))"
    arguments = [command, "--help"] if command else ["--help"]
    told = subprocess.run(
        [sys.executable, "-c", call, *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )
    return told.stdout if told.returncode == 0 else ""


@pytest.mark.parametrize("document", PRESENT)
def test_every_path_that_is_named_exists(document: str) -> None:
    """Proves that paths in code spans which begin at the root, and the targets of links, are there."""
    tops, folder = _top_names(), (ROOT / document).parent
    missing = [target for target in LINK.findall((ROOT / document).read_text()) if not (folder / target).exists()]
    for code in _code(document):
        for word in re.findall(r"[\w.*-]+(?:/[\w.*-]+)+/?", code):
            # A pattern must match something; a path that begins elsewhere is the reader's own.
            if word.split("/")[0] in tops and not list(ROOT.glob(word.rstrip("/"))):
                missing.append(word)
    assert missing == []


@pytest.mark.parametrize("document", PRESENT)
def test_every_make_target_that_is_named_exists(document: str) -> None:
    """Proves that no document names a target that the Makefile lacks."""
    known = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = {target for code in _code(document) for target in MAKE.findall(code)}
    assert named - known == set()


def test_the_readme_names_every_make_target() -> None:
    """Proves that whatever `make help` lists is in the README."""
    listed = set(re.findall(r"^([a-z-]+):.*## ", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = {target for code in _code("README.md") for target in MAKE.findall(code)}
    assert listed - named - {"help"} == set()


@pytest.mark.parametrize("document", PRESENT)
def test_every_command_line_that_is_named_exists(document: str) -> None:
    """Proves that subcommands, and the flags beside them, are what the programs accept."""
    wrong = []
    for code in _code(document):
        for program, commands, rest in COMMAND.findall(code):
            for command in commands.split("|"):
                known = _help(program, command)
                wrong += [f"{program} {command}"] if not known else []
                accepted = set(FLAG.findall(known))
                wrong += [
                    f"{program} {command} {flag}" for flag in FLAG.findall(rest) if known and flag not in accepted
                ]
    assert wrong == []


def _settings_records(module: ModuleType) -> list[Any]:
    """Settings records that the module defines, as made without arguments or as classes."""
    return [
        value
        for value in vars(module).values()
        if isinstance(value, type) and dataclasses.is_dataclass(value) and value.__module__ == module.__name__
    ]


def _documented_fields(name: str) -> dict[str, str]:
    """Field and default of each row under the heading of a record."""
    text = (ROOT / "docs" / "SETTINGS.md").read_text()
    part = re.search(rf"^### [^\n]*`{name}`[^\n]*\n(.*?)(?=^#|\Z)", text, re.MULTILINE | re.DOTALL)
    return dict(SETTINGS_ROW.findall(part.group(1))) if part else {}


def _default(field: "dataclasses.Field[Any]") -> str:
    if field.default is not dataclasses.MISSING:
        value = field.default
    elif field.default_factory is not dataclasses.MISSING:
        value = field.default_factory()
    else:
        return "required"
    return f"`{type(value).__name__}`" if dataclasses.is_dataclass(value) else f"`{value}`"


@pytest.mark.parametrize("module", [name for name in SETTINGS if (ROOT / (name.replace(".", "/") + ".py")).is_file()])
def test_every_setting_is_documented_with_its_default(module: str) -> None:
    """Proves that docs/SETTINGS.md has exactly the fields of each settings record, with their defaults."""
    for record in _settings_records(importlib.import_module(module)):
        fields = {field.name: _default(field) for field in dataclasses.fields(record)}
        assert _documented_fields(record.__name__) == fields, record.__name__


def _glossary() -> tuple[list[str], list[str]]:
    """Words of the first part, and those kept for later."""
    text = (ROOT / "docs" / "GLOSSARY.md").read_text()
    now, later = text.split("\n## Words kept for later\n")
    return _words(now), _words(later)


def _words(part: str) -> list[str]:
    rows = [row for row in GLOSSARY_ROW.findall(part) if row not in ("word", "---")]
    return [word.strip() for row in rows for word in row.split(",")]


def test_every_word_of_the_glossary_is_in_use() -> None:
    """Proves that each word is defined once, and occurs in the code or the protocol."""
    now, later = _glossary()
    assert len(now + later) == len(set(now + later))
    product = "\n".join(source.text.lower() for source in texts(("memsvc", "attn_client", "protos")))
    assert [word for word in now if word.lower() not in product] == []


def test_no_word_kept_for_later_names_code() -> None:
    """Proves that a thing which was built has moved to the words in use: no class or module bears a word kept back."""
    _, later = _glossary()
    names = {source.path.stem for source in python(("memsvc", "attn_client"))}
    for source in python(("memsvc", "attn_client")):
        names |= {name.lower() for name in re.findall(r"^class (\w+)", source.text, re.MULTILINE)}
    assert [word for word in later if word.replace(" ", "_") in names] == []


def test_the_version_is_the_same_everywhere() -> None:
    """Proves that package, server and changelog name one version."""
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert memsvc.__version__ == version
    assert re.search(r"^## \[([\d.]+)\]", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE).group(1) == version  # type: ignore[union-attr]


def test_decisions_are_numbered_without_holes() -> None:
    """Proves that docs/adr holds 0001, 0002, ... and that each says what it has to."""
    decisions = sorted((ROOT / "docs" / "adr").glob("*.md"))
    assert [path.name[:5] for path in decisions] == [f"{number + 1:04}-" for number in range(len(decisions))]
    for path in decisions:
        heads = re.findall(r"^## (.+)$", path.read_text(), re.MULTILINE)
        assert heads == ["Status", "Context", "Decision", "Consequences", "Rejected"], path.name


def test_architecture_has_a_sentence_for_every_folder() -> None:
    """Proves that each folder with code below the product's packages is described."""
    described = "\n".join(_code("docs/ARCHITECTURE.md"))
    folders = {
        source.path.parent.relative_to(ROOT).as_posix() for source in python(("memsvc", "attn_client", "kernels"))
    }
    assert sorted(folder for folder in folders if f"{folder}/" not in described) == []
