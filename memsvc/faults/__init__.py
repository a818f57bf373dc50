"""Faults on purpose, for whoever rehearses an outage; off unless a file of rules is named."""

from memsvc.faults.file import faults_of
from memsvc.faults.storage import FaultyStorage

__all__ = ["FaultyStorage", "faults_of"]
