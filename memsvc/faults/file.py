"""The file of rules that a server is started with.

Must not know: what the rules do.
"""

from pathlib import Path

from memsvc.errors import InvalidRequest
from protos.faults import DISK_PLACES, PLACES, FaultPlan, Faults


def faults_of(path: Path | None) -> Faults | None:
    """The rules in a file, at work; None without a file.

    Raises:
        InvalidRequest: It cannot be read, or a rule does not hold (INVALID_SETTING).
    """
    if path is None:
        return None
    try:
        plan = FaultPlan.parse(path.read_bytes(), {**PLACES, **DISK_PLACES})
    except OSError as error:
        message = f"faults: expected a file that can be read, got {error.strerror}, at {path}"
        raise InvalidRequest(message, reason="INVALID_SETTING") from None
    except ValueError as error:
        raise InvalidRequest(f"faults: {path}: {error}", reason="INVALID_SETTING") from None
    return Faults(plan)
