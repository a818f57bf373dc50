"""How much the crash tests do: a sample in an ordinary run, all of it under `make test-crash`."""

import os


def volume(sample: int, whole: int) -> int:
    """So many runs: `sample`, or `whole` where CRASH_VOLUME says so."""
    named = os.environ.get("CRASH_VOLUME", "sample")
    if named not in ("sample", "whole"):
        raise ValueError(f"CRASH_VOLUME: expected sample or whole, got {named!r}")
    return whole if named == "whole" else sample
