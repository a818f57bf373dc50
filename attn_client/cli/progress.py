"""A progress bar on standard error while a text is read; silent where nobody watches."""

import contextlib
import resource
from collections.abc import Callable, Iterator

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeRemainingColumn

from attn_client.reader import Reader

_BYTES_PER_KIB = 1024
_MIB = 1 << 20


@contextlib.contextmanager
def reading(reader: Reader, tokens: int, label: str) -> Iterator[Callable[[int], None]]:
    """A function to call with the tokens of each chunk that was read."""
    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[figures]}"))
    console = Console(stderr=True)
    with Progress(*columns, TimeRemainingColumn(), console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task(label, total=tokens, figures="")

        def advance(count: int) -> None:
            bar.advance(task, count)
            bar.update(task, figures=_figures(reader, bar.tasks[0].speed))

        yield advance


def _figures(reader: Reader, tokens_per_s: float | None) -> str:
    speed = "" if tokens_per_s is None else f"{tokens_per_s:,.0f} tokens/s  "
    bookmarks = "" if reader.memory is None else f"{reader.memory.stats.bookmarks:,} bookmarks  "
    return f"{reader.position:,} tokens  {speed}{bookmarks}{peak_memory_mib():,} MiB"


def peak_memory_mib() -> int:
    """Largest memory that this process has used so far, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _BYTES_PER_KIB // _MIB
