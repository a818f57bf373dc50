"""`memsvc verify` and `memsvc repair`: whether what is stored is whole, and making it so again.

Exit codes of both: 0 all is whole (after a repair: now); 1 something is damaged, or was and is lost; 2 nobody knows, as
the command line is wrong, a server runs in the folder, or the disk refused.
"""

import argparse
import json
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from memsvc.cli.dial import add_dialling
from memsvc.cli.shape import table
from memsvc.cli.upkeep import verify_server
from memsvc.errors import InvalidRequest
from memsvc.verify.findings import Finding, Report, SessionReport
from memsvc.verify.folder_check import verify_folder
from memsvc.verify.repair import Repaired, repair_folder

EXIT_WHOLE, EXIT_DAMAGED, EXIT_UNKNOWN = 0, 1, 2

Record = dict[str, Any]


def add_verify(command: argparse.ArgumentParser) -> None:
    """Flags of `memsvc verify`."""
    command.add_argument("--data", type=Path, metavar="DIR", help="folder of sessions, without a server")
    add_dialling(command, required=False)
    command.add_argument("--session", metavar="NAME", help="of a server: this session alone")
    command.add_argument("--json", action="store_true", help="one JSON object instead of a table")


def add_repair(command: argparse.ArgumentParser) -> None:
    """Flags of `memsvc repair`."""
    command.add_argument("--data", required=True, type=Path, metavar="DIR", help="folder of sessions, without a server")
    command.add_argument("--json", action="store_true", help="one JSON object instead of lines")


def run_verify(options: argparse.Namespace) -> int:
    """Print what a data folder or a server holds, and what is damaged in it; the exit code.

    Raises:
        MemsvcError: The folder cannot be read, or the flags name not one of both.
        ReadFailed: The server did not answer.
    """
    if (options.data is None) == (options.memory is None):
        raise InvalidRequest("verify: expected --data or --memory, got neither or both", reason="INVALID_SETTING")
    report = verify_folder(options.data) if options.data is not None else verify_server(options)
    print(json.dumps(report_record(report)) if options.json else report_text(report))
    return EXIT_DAMAGED if report.damaged else EXIT_WHOLE


def run_repair(options: argparse.Namespace) -> int:
    """Repair a data folder, and print what was done; the exit code. Raises MemsvcError."""
    repaired = repair_folder(options.data)
    print(json.dumps(_repaired_record(repaired)) if options.json else _repaired_text(repaired))
    return EXIT_DAMAGED if repaired.lost or repaired.after.damaged else EXIT_WHOLE


def report_record(report: Report) -> Record:
    """A report for programs."""
    sessions = [{**asdict(own), "findings": _finding_records(own.findings)} for own in report.sessions]
    return {"damaged": report.damaged, "sessions": sessions, "findings": _finding_records(report.findings)}


def report_text(report: Report) -> str:
    """A report for people: one line a session, then one line a finding, damage first."""
    heads = ("SESSION", "RECORDS", "BOOKMARKS", "BLOCKS", "BYTES", "UNUSED", "SHARD FILES", "FINDINGS")
    lines = [table(heads, (_session_row(own) for own in report.sessions))] if report.sessions else []
    lines += [str(finding) for finding in report.all_findings]
    return "\n".join([*lines, "damaged" if report.damaged else "whole"])


def _session_row(own: SessionReport) -> tuple[object, ...]:
    return (
        own.name or own.id,
        own.records,
        own.bookmarks,
        own.blocks,
        own.block_bytes,
        own.unused_bytes,
        own.shard_files,
        len(own.findings),
    )


def _finding_records(findings: Iterable[Finding]) -> list[Record]:
    return [asdict(finding) for finding in findings]


def _repaired_record(repaired: Repaired) -> Record:
    return {
        "done": list(repaired.done),
        "lost": list(repaired.lost),
        "quarantine": str(repaired.quarantine) if repaired.quarantine else None,
        "after": report_record(repaired.after),
    }


def _repaired_text(repaired: Repaired) -> str:
    lines = [f"done: {line}" for line in repaired.done] + [f"lost: {line}" for line in repaired.lost]
    if repaired.quarantine is not None:
        lines.append(f"set aside: {repaired.quarantine}")
    return "\n".join([*(lines or ["nothing to repair"]), report_text(repaired.after)])
