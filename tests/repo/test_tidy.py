"""Rules of style that a program can check. Each test lists every place that breaks its rule."""

import ast
import re
from collections.abc import Iterator

from tests.repo.sources import PRODUCT, ROOT, Source, functions, lines_of, python, texts

FILE_LINES_MAX = 400
FUNCTION_LINES_MAX = 70
CLASS_LINES_MAX = 200
PARAMETERS_MAX = 8
# Files named so become drawers for whatever has no place.
DRAWER_WORDS = frozenset(("util", "helper", "misc", "common", "manager"))
# Written apart, so that this file does not find itself.
UNFINISHED = re.compile(r"\b(" + "|".join(("FIX" + "ME", "X" + "XX", "HA" + "CK")) + r")\b")
TODO_WITHOUT_ISSUE = re.compile(r"\bTO" + r"DO\b(?!\(#\d+\))")
# A folder of one machine; a path that the text makes up begins with another.
MACHINE_PATH = re.compile(r"(?<![\w.~$}])/(work|home|root|Users|mnt|tmp/team)/")


def test_no_file_is_longer_than_400_lines() -> None:
    """Proves that every hand-written Python file can be read in one sitting."""
    lines = {source.name: source.text.count("\n") for source in python()}
    assert {name: count for name, count in lines.items() if count > FILE_LINES_MAX} == {}


def test_no_function_is_longer_than_70_lines() -> None:
    """Proves that every function, kernels included, fits on a screen."""
    long = [
        f"{source.name}: {node.name} has {lines_of(node)} lines"
        for source in python()
        for node in functions(source)
        if lines_of(node) > FUNCTION_LINES_MAX
    ]
    assert long == []


def test_no_class_is_longer_than_200_lines() -> None:
    """Proves that no class has grown into everything at once."""
    long = [
        f"{source.name}: {node.name} has {lines_of(node)} lines"
        for source in python()
        for node in ast.walk(source.tree)
        if isinstance(node, ast.ClassDef) and lines_of(node) > CLASS_LINES_MAX
    ]
    assert long == []


def test_no_function_takes_more_than_8_parameters() -> None:
    """Proves that what belongs together travels as a record. Kernels are exempt: a launch has no records."""
    many = []
    for source in python():
        for node in functions(source):
            taken = [a.arg for a in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)]
            count = len(taken) - (taken[:1] in (["self"], ["cls"]))
            if count > PARAMETERS_MAX and not _is_kernel(node):
                many.append(f"{source.name}: {node.name} takes {count}")
    assert many == []


def test_no_file_is_named_as_a_drawer() -> None:
    """Proves that files are named for what they hold."""
    drawers = [
        source.name
        for source in texts()
        for word in re.split(r"[^a-z]+", source.path.stem.lower())
        if word in DRAWER_WORDS or word.removesuffix("s") in DRAWER_WORDS
    ]
    assert drawers == []


def test_nothing_is_left_unfinished_in_the_text() -> None:
    """Proves that no marker of unfinished work is left, unless it names its issue as in (#12)."""
    assert _lines_matching(UNFINISHED) == []
    assert _lines_matching(TODO_WITHOUT_ISSUE) == []


def test_no_text_names_a_folder_of_one_machine() -> None:
    """Proves that code, tests and documents work from any folder."""
    own = "tests/repo/test_tidy.py"
    assert [line for line in _lines_matching(MACHINE_PATH) if not line.startswith(own)] == []


def test_every_public_name_is_documented() -> None:
    """Proves that modules, public classes, functions and methods of the product have docstrings."""
    bare = [f"{source.name}: {name}" for source in python(PRODUCT) for name in _undocumented(source)]
    assert bare == []


def test_every_test_says_what_it_proves() -> None:
    """Proves that each test has a docstring, and a name that is a sentence of three words at least."""
    silent = [
        f"{source.name}: {node.name}"
        for source in python(("tests",))
        for node in functions(source)
        if node.name.startswith("test_") and not (ast.get_docstring(node) and len(node.name.split("_")) >= 4)
    ]
    assert silent == []


def test_kernels_is_a_folder_and_not_a_package() -> None:
    """Proves that no package named `kernels` shadows the one that transformers looks for."""
    assert not (ROOT / "kernels" / "__init__.py").exists()


def test_importing_the_product_runs_nothing() -> None:
    """Proves that modules only define: no call, loop or `with` at their top level, and no rebinding of globals."""
    effects = [
        f"{source.name}:{line}"
        for source in python((*PRODUCT, "benchmarks"))
        if source.path.name != "__main__.py"
        for line in _import_effects(source)
    ]
    assert effects == []


def _is_kernel(node: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    return any("triton" in ast.unparse(decorator) for decorator in node.decorator_list)


def _lines_matching(pattern: re.Pattern[str]) -> list[str]:
    return [
        f"{source.name}: {line.strip()}"
        for source in texts()
        for line in source.text.splitlines()
        if pattern.search(line)
    ]


def _undocumented(source: Source) -> Iterator[str]:
    marker = source.path.name == "__init__.py" and not source.text
    if not ast.get_docstring(source.tree) and not marker:
        yield "the module"
    yield from _undocumented_in(source.tree.body, "")


def _undocumented_in(body: list[ast.stmt], prefix: str) -> Iterator[str]:
    for node in body:
        if not isinstance(node, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)) or node.name.startswith("_"):
            continue
        decorators = [ast.unparse(decorator) for decorator in node.decorator_list]
        # The getter documents a property, the implementation an overload.
        repeated = any(name.endswith((".setter", "overload")) for name in decorators)
        if not ast.get_docstring(node) and not repeated:
            yield prefix + node.name
        if isinstance(node, ast.ClassDef):
            yield from _undocumented_in(node.body, f"{prefix}{node.name}.")


def _import_effects(source: Source) -> Iterator[int]:
    defining = (
        ast.Import,
        ast.ImportFrom,
        ast.ClassDef,
        ast.FunctionDef,
        ast.AsyncFunctionDef,
        ast.Assign,
        ast.AnnAssign,
        ast.If,
    )
    for node in source.tree.body:
        documents = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        guarded = not isinstance(node, ast.If) or ast.unparse(node.test) in ("TYPE_CHECKING", "__name__ == '__main__'")
        names = isinstance(node, ast.Assign) and not all(
            isinstance(target, (ast.Name, ast.Tuple)) for target in node.targets
        )
        if not (documents or (isinstance(node, defining) and guarded)) or names:
            yield node.lineno
    yield from (node.lineno for node in ast.walk(source.tree) if isinstance(node, ast.Global))
