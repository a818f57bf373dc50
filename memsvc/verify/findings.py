"""What verifying found: damage, and what is odd but harms nobody.

Invariant: a finding is one line that says what was expected and what came, and names file and place.
"""

from dataclasses import dataclass
from enum import StrEnum


class Severity(StrEnum):
    """How bad a finding is."""

    # Something that was promised is gone, or would be refused when it is asked for.
    DAMAGE = "damage"
    # Left by a crash, or of no use to anybody: reads and writes go on as if it were not there.
    NOTE = "note"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is not as it should be.

    Args:
        path: Of the file, from the data folder on.
        place: In the file: an offset, a record, a block, a row; empty for all of it.
    """

    severity: Severity
    path: str
    place: str
    message: str

    def __str__(self) -> str:
        return f"{self.severity}: {self.path}{f', {self.place}' if self.place else ''}: {self.message}"


@dataclass(frozen=True, slots=True)
class SessionReport:
    """What was read of one session.

    Args:
        name: As manifest or log say; empty if neither does.
        id: Names its folder.
        blocks: That a reader can ask for; `block_bytes` of data in all.
        unused_bytes: Of segments, that hold nothing a reader can ask for.
    """

    name: str
    id: str
    records: int
    bookmarks: int
    blocks: int
    block_bytes: int
    unused_bytes: int
    shard_files: int
    findings: tuple[Finding, ...]


@dataclass(frozen=True, slots=True)
class Report:
    """What was read of a data folder; `findings` are those of the manifest and of folders."""

    sessions: tuple[SessionReport, ...]
    findings: tuple[Finding, ...]

    @property
    def all_findings(self) -> tuple[Finding, ...]:
        """Those of the sessions too, damage first."""
        found = [*self.findings, *(finding for session in self.sessions for finding in session.findings)]
        return tuple(sorted(found, key=lambda finding: finding.severity))

    @property
    def damaged(self) -> bool:
        """Whether anything that was promised is not there."""
        return any(finding.severity is Severity.DAMAGE for finding in self.all_findings)
