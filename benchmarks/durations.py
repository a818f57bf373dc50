"""How long the two commands of the README take once everything is set up: `python -m benchmarks.durations`.

Runs `make demo` and `make test` as a person does, one after the other, and records their minutes.
"""

import argparse
import subprocess
import time

from benchmarks.summary import ROOT, Row, record

GOALS_MINUTES = {"demo": 5.0, "test": 12.0}
COMMAND = "python -m benchmarks.durations"


def main() -> None:
    """Run the chosen targets, print and record."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("targets", nargs="*", default=list(GOALS_MINUTES), help="demo, test; both without any")
    for target in arguments.parse_args().targets:
        goal = GOALS_MINUTES[target]
        minutes = round(_minutes(target), 2)
        print(f"make {target}: {minutes} minutes (at most {goal:g})")
        name = f"make {target} after set-up, minutes"
        record([Row(3, name, minutes, f"at most {goal:g}", minutes <= goal, f"{COMMAND} {target}")])


def _minutes(target: str) -> float:
    began = time.monotonic()
    subprocess.run(["make", target], cwd=ROOT, check=True)
    return (time.monotonic() - began) / 60


if __name__ == "__main__":
    main()
