"""What memory costs while reading: tokens a second of `attn-client ingest`, side by side with `--no-memory`. `make
bench`.

Each round reads the same text three ways, one process each, in an order that changes from round to round; the figure is
the median over rounds of the ratio within the round, so that a machine that slows down slows all three.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks import texts
from benchmarks.summary import Row, record

TEXT_CHARACTERS = 48_000
ROUNDS = 3
WAYS: dict[str, tuple[str, ...]] = {
    "none": ("--no-memory",),
    "every": ("--policy", "every", "--session", "cost"),
    "surprisal": ("--policy", "surprisal", "--session", "cost"),
}
GOALS = {"every": 0.90, "surprisal": 0.72}
COMMAND = "make bench"


def main() -> None:
    """Run the rounds, print the table, and record the ratios."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--rounds", type=int, default=ROUNDS, help="fewer are not recorded")
    arguments.add_argument("--characters", type=int, default=TEXT_CHARACTERS, help="length of the text")
    chosen = arguments.parse_args()
    speeds: list[dict[str, float]] = []
    with tempfile.TemporaryDirectory(prefix="ingest-cost-") as folder:
        text = Path(folder) / "text.txt"
        text.write_text("\n\n".join(texts.library_docstrings())[: chosen.characters])
        for number in range(chosen.rounds):
            speeds.append(_round(text, Path(folder) / f"round-{number}", number))
            print("  ".join(f"{way} {speed:.0f} tokens/s" for way, speed in sorted(speeds[-1].items())), flush=True)
    rows = [_row(policy, goal, speeds) for policy, goal in GOALS.items()]
    for row in rows:
        print(f"{row.name}: {row.value} ({row.goal})")
    if chosen.rounds >= ROUNDS and chosen.characters == TEXT_CHARACTERS:
        record(rows)


def _round(text: Path, folder: Path, number: int) -> dict[str, float]:
    names = list(WAYS)
    order = names[number % len(names) :] + names[: number % len(names)]
    return {way: _tokens_per_s(text, folder / way, WAYS[way]) for way in order}


def _tokens_per_s(text: Path, data: Path, flags: tuple[str, ...]) -> float:
    command = [sys.executable, "-m", "attn_client.cli", "ingest", "--file", str(text), "--json", *flags]
    if "--session" in flags:
        command += ["--data", str(data)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    report = json.loads(done.stdout)
    if report.get("degraded"):
        raise RuntimeError(f"expected a run that was not degraded, got {report['degraded_reasons']}")
    return float(report["tokens_per_s"])


def _row(policy: str, goal: float, speeds: list[dict[str, float]]) -> Row:
    ratio = round(statistics.median(speed[policy] / speed["none"] for speed in speeds), 3)
    name = f"ingest speed with policy {policy}, share of --no-memory"
    return Row(3, name, ratio, f"at least {goal}", ratio >= goal, COMMAND, seeds=[])


if __name__ == "__main__":
    main()
