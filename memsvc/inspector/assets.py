"""What pages load that others wrote: copied from npm packages that package-lock.json pins, served locally.

    .venv/bin/python -m memsvc.inspector.assets

runs `npm ci` in a folder of its own, without scripts, and copies the few files that pages load to `vendor/`, which is
never committed. It is done once, when the project is set up or its wheel or image is built.
"""

import argparse
import shutil
import subprocess
import sys
from pathlib import Path

VENDOR = Path(__file__).parent / "vendor"
# By name in `vendor/`: where it lies among the packages.
FILES = {
    "htmx.js": "htmx.org/dist/htmx.min.js",
    "graphology.js": "graphology/dist/graphology.umd.min.js",
    "graphology-library.js": "graphology-library/dist/graphology-library.min.js",
    "sigma.js": "sigma/dist/sigma.min.js",
    "inter.woff2": "@fontsource-variable/inter/files/inter-latin-wght-normal.woff2",
    "jetbrains-mono.woff2": "@fontsource-variable/jetbrains-mono/files/jetbrains-mono-latin-wght-normal.woff2",
}
COMMAND = "python -m memsvc.inspector.assets"
_PINS = ("package.json", "package-lock.json")


def missing() -> list[str]:
    """Files that are not there, by name."""
    return [name for name in FILES if not (VENDOR / name).is_file()]


def fetch(pins: Path, work: Path) -> None:
    """Fetch the packages and copy what pages load.

    Args:
        pins: Folder with package.json and package-lock.json.
        work: Folder for the packages; made if it is not there.

    Raises:
        FileNotFoundError: No pins, or no npm.
        subprocess.CalledProcessError: npm failed.
    """
    work.mkdir(parents=True, exist_ok=True)
    for name in _PINS:
        shutil.copyfile(pins / name, work / name)
    subprocess.run(["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--silent"], cwd=work, check=True)
    VENDOR.mkdir(exist_ok=True)
    for name, source in FILES.items():
        shutil.copyfile(work / "node_modules" / source, VENDOR / name)


def main(arguments: list[str]) -> int:
    """Fetch them, and say what came of it in one line; the exit code."""
    root = Path(__file__).resolve().parents[2]
    parser = argparse.ArgumentParser(prog=COMMAND, description="Fetch what the inspector's pages load.")
    parser.add_argument("--pins", type=Path, default=root, help="folder with package.json and package-lock.json")
    parser.add_argument("--work", type=Path, default=root / ".cache" / "inspector", help="folder for the packages")
    options = parser.parse_args(arguments)
    try:
        fetch(options.pins, options.work)
    except FileNotFoundError as error:
        print(f"assets: expected npm and the pins, got no {error.filename}", file=sys.stderr)
        return 1
    except subprocess.CalledProcessError as error:
        print(f"assets: expected npm to fetch the packages, got exit code {error.returncode}", file=sys.stderr)
        return 1
    print(f"assets: {len(FILES)} files in {VENDOR}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
