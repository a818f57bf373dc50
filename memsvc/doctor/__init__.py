"""Whether a machine and a data folder are fit for a node: checks that change nothing, each with what to do.

Must not know: gRPC, sessions, how a check is shown.
"""

from memsvc.doctor.check import Check, State, worst
from memsvc.doctor.folder import folder_checks
from memsvc.doctor.machine import machine_checks

__all__ = ["Check", "State", "folder_checks", "machine_checks", "worst"]
