"""The memory that the flags of a command name, connected as they say."""

import argparse
import contextlib
from collections.abc import Iterator

from attn_client.cli.arguments import ACCESS_FLAGS
from attn_client.hf.attach import NO_MEMORY, NoMemory
from attn_client.memory import ClientSettings, MemoryClient


@contextlib.contextmanager
def memory_of(arguments: argparse.Namespace) -> Iterator[MemoryClient | NoMemory | None]:
    """What `attach` takes: a client of the server that is named, None for a private server, or NO_MEMORY.

    Raises:
        InvalidSettings: A flag about the connection does not hold.
        MemoryUnavailable, MemoryRefused: Nobody there, or one that does not let us in.
    """
    if arguments.no_memory or arguments.memory is None:
        yield NO_MEMORY if arguments.no_memory else None
        return
    settings = ClientSettings(**{name: getattr(arguments, name) for name in ACCESS_FLAGS})
    with MemoryClient(arguments.memory, settings) as client:
        yield client
