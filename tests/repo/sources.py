"""Which files the tidiness tests read: everything that people write, and nothing that a tool makes."""

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
# What is imported by users; tests and benchmarks are checked less.
PRODUCT = ("memsvc", "attn_client", "kernels", "protos")
CODE = (*PRODUCT, "benchmarks", "tests")
PROSE = ("README.md", "CHANGELOG.md", "docs")
BUILD = ("Makefile", "pyproject.toml", "buf.yaml", ".ci")

_GENERATED = ("_pb2.py", "_pb2.pyi", "_pb2_grpc.py", "_pb2_grpc.pyi")
_TEXT = (".py", ".proto", ".md", ".toml", ".yaml")


@dataclass(frozen=True)
class Source:
    """One file; `name` is its path from the root."""

    path: Path

    @property
    def name(self) -> str:
        """Path from the root, with slashes."""
        return self.path.relative_to(ROOT).as_posix()

    @cached_property
    def text(self) -> str:
        """Its contents."""
        return self.path.read_text(encoding="utf-8")

    @cached_property
    def tree(self) -> ast.Module:
        """Its syntax tree."""
        return ast.parse(self.text, filename=self.name)


def python(folders: tuple[str, ...] = CODE) -> Iterator[Source]:
    """Hand-written Python files of the folders."""
    yield from (source for source in texts(folders) if source.path.suffix == ".py")


def texts(names: tuple[str, ...] = (*CODE, *PROSE, *BUILD)) -> Iterator[Source]:
    """Hand-written text files under the names, which are files or folders."""
    for name in names:
        top = ROOT / name
        for path in sorted(top.rglob("*")) if top.is_dir() else [top]:
            hand_written = not path.name.endswith(_GENERATED) and "__pycache__" not in path.parts
            known = path.suffix in _TEXT or path.name in ("Makefile", "run")
            if path.is_file() and hand_written and known:
                yield Source(path)


def functions(source: Source) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    """Every function and method of a file, nested ones too."""
    for node in ast.walk(source.tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            yield node


def lines_of(node: ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) -> int:
    """Lines from `def` or `class` to the end."""
    assert node.end_lineno is not None
    return node.end_lineno - node.lineno + 1
