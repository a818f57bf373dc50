"""The connection to a memory server: sessions, steps out, recalls and blocks in. Holds no torch."""

from attn_client.memory.client import MemoryClient
from attn_client.memory.records import HopAsk, RecallAnswer, RecallAsk, RecalledBlock, SessionStats, StepRecord
from attn_client.memory.session import MemorySession
from attn_client.memory.settings import ClientSettings

__all__ = [
    "ClientSettings",
    "HopAsk",
    "MemoryClient",
    "MemorySession",
    "RecallAnswer",
    "RecallAsk",
    "RecalledBlock",
    "SessionStats",
    "StepRecord",
]
