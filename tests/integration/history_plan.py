"""What each client of a history does, from a seed: mostly what makes sense, and often enough what does not."""

import asyncio
import contextlib
from dataclasses import dataclass, field
from random import Random

import grpc

from tests.integration.fuzz_node import AioStubs
from tests.integration.history_callers import Notebook
from tests.integration.history_clients import Caller, Held, block_of
from tests.integration.history_model import GONE

FAMILIES = 3
NAMES = tuple(f"f{family}-{one}" for family in range(FAMILIES) for one in ("a", "b"))
SNAPSHOTS = ("x", "y")
# Where writers stop, so that sessions stay small: a checker compares their states all the time.
TEXT_TOKENS_MAX = 512
_HELD_MAX = 4


@dataclass
class Client:
    """One client: what it holds, and what it held before."""

    caller: Caller
    random: Random
    writers: list[Held] = field(default_factory=list)
    views: list[Held] = field(default_factory=list)
    former: list[Held] = field(default_factory=list)

    async def act(self) -> None:
        """Does one thing: with a writer mostly what writers do."""
        if self.writers and self.random.random() < 0.75:
            await self._write(self.random.choice(self.writers))
        elif (self.views or self.former) and self.random.random() < 0.35:
            await self._attached()
        else:
            await self._session(self.random.choice(NAMES))

    async def _session(self, name: str) -> None:
        """A call on a session by its name."""
        caller, random = self.caller, self.random
        family = name.partition("-")[0]
        other = next(own for own in NAMES if own.startswith(f"{family}-") and own != name)
        snapshot = random.choice(SNAPSHOTS)
        kind = random.choices(*zip(*_SESSION_CALLS, strict=True))[0]
        if kind == "open":
            if (held := await caller.open_writer(name)) is not None:
                self.writers.append(held)
        elif kind == "view":
            if (held := await caller.open_view(name, random.choice(("", *SNAPSHOTS)))) is not None:
                self.views = [*self.views, held][-_HELD_MAX:]
        elif kind == "fork":
            await caller.fork(name, random.choice(("", snapshot)), other)
        elif kind == "rename":
            await caller.rename(name, other)
        elif kind in ("snapshot", "drop_snapshot"):
            await getattr(caller, kind)(name, snapshot)
        elif kind == "list":
            await caller.list(NAMES)
        elif kind == "leave":
            await self._leave()
        else:
            await getattr(caller, kind)(name)

    async def _write(self, held: Held) -> None:
        kind = self.random.choices(*zip(*_WRITER_CALLS, strict=True))[0]
        block, filled = block_of(held.position)
        missing = [one for one in range(block) if one not in held.put]
        if kind == "append" and held.position < TEXT_TOKENS_MAX:
            await self._append(held)
        elif kind == "put" and missing:
            await self._put(held, self.random.choice(missing), 0)
        elif kind == "tail":
            if filled and held.partial != held.position:
                await self._put(held, block, filled)
            await self.caller.save_tail(held, max(0, held.position + self.random.choice((0, 0, 0, 0, 1, -1))))
        elif kind == "wrong":
            await self._wrong(held)
        elif kind == "fetch" or (kind != "close" and held.position < TEXT_TOKENS_MAX):
            await self.caller.fetch(held, self.random.randrange(block + 2))
        else:
            await self._close(held)
            await self.caller.delete(held.name)

    async def _append(self, held: Held) -> None:
        await self._step(held, self.random.choice((1, 7, 32, 64, 64)), self.random.random() < 0.3)

    async def _step(self, held: Held, count: int, ask: bool) -> None:
        if not await self.caller.append(held, held.seq + 1, held.position, count, ask):
            held.seq, held.position, held.asked = held.seq + 1, held.position + count, ask

    async def _put(self, held: Held, block: int, partial: int) -> None:
        if await self.caller.put(held, block, partial, next(self.caller.notebook.numbers)):
            return
        if partial:
            held.partial = held.position
        else:
            held.put.add(block)

    async def _wrong(self, held: Held) -> None:
        """What a writer does that lost count, or that is not the writer any more."""
        random, caller = self.random, self.caller
        # One after the next is out of order, one before it is acknowledged again.
        seq, first = random.choice(((held.seq, held.position), (held.seq + 2, held.position), (held.seq + 1, 1_000)))
        if random.random() < 0.5 and seq > 0 and not (held.asked and seq == held.seq):
            await caller.append(held, seq, first, 5, False)
        else:
            await caller.put(held, random.randrange(2), 0, next(caller.notebook.numbers))

    async def _attached(self) -> None:
        """A view reads; an attachment that ended is used, which is refused, or goes on."""
        random, caller = self.random, self.caller
        held = random.choice(self.views or self.former)
        if self.former and random.random() < 0.4:
            await self._former(random.choice(self.former))
        elif held in self.views and random.random() < 0.2:
            await self._close(held)
        elif held in self.views and random.random() < 0.3:
            await self._step(held, 8, random.random() < 0.7)
        elif await caller.fetch(held, random.randrange(block_of(held.position)[0] + 1)) in GONE:
            # Mostly of no use any more, and now and then used all the same.
            self.views = [view for view in self.views if view is not held]
            self.former = [own for own in self.former if own is not held or random.random() < 0.5]

    async def _former(self, held: Held) -> None:
        kind = self.random.choice(("resume", "resume", "append", "fetch", "tail"))
        if kind == "resume":
            if (again := await self.caller.open_writer(held.name, held)) is not None:
                self.writers.append(again)
                self.former.remove(held)
        elif kind == "append":
            await self._step(held, 3, False)
        elif kind == "fetch":
            await self.caller.fetch(held, 0)
        else:
            await self.caller.save_tail(held, held.position)

    async def _close(self, held: Held) -> None:
        await self.caller.close(held)
        if held in self.writers:
            self.writers.remove(held)
            self._remember(held)
        else:
            self.views.remove(held)

    async def _leave(self) -> None:
        """Its stream ends and comes back."""
        await self.caller.leave([*self.writers, *self.views, *self.former])
        for held in self.writers:
            self._remember(held)
        self.writers, self.views = [], []
        await self.caller.attach()

    def _remember(self, held: Held) -> None:
        self.former = [*self.former, held][-_HELD_MAX:]


_SESSION_CALLS = (
    ("open", 10),
    ("create", 6),
    ("look", 6),
    ("read_text", 4),
    ("list", 1),
    ("view", 5),
    ("delete", 2),
    ("fork", 3),
    ("rename", 2),
    ("snapshot", 2),
    ("drop_snapshot", 3),
    ("list_snapshots", 2),
    ("leave", 2),
)
_WRITER_CALLS = (("append", 10), ("put", 8), ("tail", 4), ("wrong", 1), ("fetch", 3), ("close", 1))


async def recorded(address: str, seed: int, clients: int, calls: int) -> Notebook:
    """What so many clients were told, each of so many calls."""
    notebook = Notebook()
    async with contextlib.AsyncExitStack() as stack:
        acting: list[Client] = []
        for client in range(clients):
            options = [("grpc.use_local_subchannel_pool", 1)]
            channel = await stack.enter_async_context(grpc.aio.insecure_channel(address, options=options))
            acting.append(Client(Caller(client, AioStubs(channel, ()), notebook), Random(f"{seed} {client}")))
        await asyncio.gather(*(_life(client, calls) for client in acting))
    return notebook


async def _life(client: Client, calls: int) -> None:
    await client.caller.start()
    for _ in range(calls):
        await client.act()
    await client.caller.leave([*client.writers, *client.views, *client.former])
