"""What some extras of pyproject.toml ask for, one requirement a line: an image installs it before the code is copied.

    python3 dependencies.py pyproject.toml EXTRA...

An extra that names this project's own extras stands for what these ask for.
"""

import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any


def wanted(project: dict[str, Any], extras: list[str]) -> Iterator[str]:
    """Requirements of the project and of these extras. Raises KeyError for an extra that it lacks."""
    yield from project["dependencies"]
    own = re.compile(rf"{re.escape(project['name'])}\[([^\]]+)\]")
    waiting, seen = list(extras), set[str]()
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        for requirement in project["optional-dependencies"][name]:
            within = own.fullmatch(requirement)
            if within is None:
                yield requirement
            else:
                waiting += within[1].split(",")


def main(arguments: list[str]) -> int:
    """Print them; the exit code."""
    project = tomllib.loads(Path(arguments[0]).read_text())["project"]
    try:
        print("\n".join(sorted(set(wanted(project, arguments[1:])))))
    except KeyError as error:
        known = ", ".join(sorted(project["optional-dependencies"]))
        print(f"dependencies: expected extras among {known}, got {error.args[0]!r}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
