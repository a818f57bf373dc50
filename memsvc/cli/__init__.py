"""The program `memsvc`: runs a memory server, and shows what one holds.

Invariants:
    Results are on standard output, as a table or with --json as one object; scripts depend on both.
    A failure is one line on standard error. Exit code 2: the command line is wrong; 1: anything else. Of `verify` and
    `repair` 1 says that something is damaged, and 2 that nobody knows.
"""

from memsvc.cli.entry import main

__all__ = ["main"]
