"""One session being read by one model: the order of passes, steps, blocks and recalls (docs/ARCHITECTURE.md).

    read     window-only passes of a chunk each; embeddings and finished blocks stream to the memory server
    prompt   the last pass of a prompt runs twice: the first gives the vectors to search with, the second attends to
             what was recalled and is the one that counts
    decode   one token, with the recall asked for a fixed number of tokens earlier

Without a memory session a reader has sinks and window only: the control for every claim.
"""

import functools
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from attn_client.attention import AttentionParts, LayerRoles, RowPass
from attn_client.hf.passes import ModelPasses, PassOutput
from attn_client.memory import MemorySession, RecallAsk, StepRecord
from attn_client.recall import LaggedRecall
from attn_client.residents import Residents
from attn_client.room import Room
from attn_client.salience import MASS, SURPRISAL, Surprisal, wanted_signals
from attn_client.settings import BLOCK_TOKENS, Settings
from attn_client.streams import PROBE, embeddings_of, logits_of_tail, restore_tail
from attn_client.token_text import TokenTexts
from attn_client.window import Geometry

# A prompt's last pass covers at least this many of its tokens: enough for the trail to forget what came before them.
PROMPT_PASS_TOKENS = 256


class Reader:
    """One row: its residents, its place in the memory session, its next-token logits."""

    def __init__(
        self,
        passes: ModelPasses,
        parts: AttentionParts,
        settings: Settings,
        memory: MemorySession | None,
        texts: TokenTexts | None = None,
    ) -> None:
        self._passes, self._parts, self._settings, self.memory = passes, parts, settings, memory
        self.geometry = Geometry.of(settings)
        self.residents = Residents(passes.decoder.shape, self.geometry)
        layers = settings.probe.memory_layers
        self._memory_layers = frozenset(range(passes.decoder.shape.layers) if layers is None else layers)
        self.recalls = LaggedRecall(memory, settings.recall) if memory is not None else None
        self._surprisal = Surprisal(passes.decoder.head, settings.probe.salience_vocabulary)
        # What text the session is sent: a view keeps nothing.
        keeps = memory is not None and not memory.read_only and memory.info.spec.keep_text
        self._texts = texts if keeps else None
        self._signals = wanted_signals(memory.info.spec.policy) if memory is not None else frozenset()
        self._last_hidden: Tensor | None = None
        self._logits: Tensor | None = None
        self._last_id: int | None = None
        self.resident_tokens_max = 0
        # Position of the newest tail that this reader saved or began at.
        self._saved_at: int | None = None
        self._room = Room()
        # Blocks of the window that the session lost before it was opened here.
        self._missing: list[int] = []
        if memory is not None and memory.tail is not None:
            self._missing = restore_tail(self.residents, memory, settings.recall.timeout_s)
            self._logits = logits_of_tail(memory.tail, passes.decoder.shape.device)
            self._last_id = memory.tail.last_id if memory.tail.HasField("last_id") else None

    @property
    def position(self) -> int:
        """Tokens read so far: the position of the next one."""
        return self.residents.tokens

    @property
    def degraded(self) -> tuple[str, ...]:
        """What memory failed to give or take, in words; empty when all went well."""
        if self.memory is None or self.recalls is None:
            return ()
        missing = (f"blocks of the window are missing from memory: {self._missing}",) if self._missing else ()
        return (*missing, *self.recalls.degraded, *self.memory.degraded_reasons)

    def fork(self) -> "Reader":
        """A reader that goes on from here on its own. Raises ValueError beside a memory: open a view of it instead."""
        if self.memory is not None:
            raise ValueError("expected a reader without memory to fork, got one with a session: open a view of it")
        copy = Reader(self._passes, self._parts, self._settings, None)
        copy.residents = self.residents.copy()
        copy._last_hidden, copy._logits, copy._last_id = self._last_hidden, self._logits, self._last_id
        copy.resident_tokens_max = self.resident_tokens_max
        return copy

    def read(self, ids: Sequence[int], on_chunk: Callable[[int], None] | None = None) -> None:
        """Read tokens window-only (or with recall, if the settings say so), a chunk at a time.

        Chunks end at multiples of the chunk size wherever a call begins: what is stored depends on the ids, and on
        where calls end inside a chunk, which is then read in two passes.
        """
        chunk = self.geometry.chunk_tokens
        done = 0
        while done < len(ids):
            count = min(chunk - self.position % chunk, len(ids) - done)
            self._pass_and_commit(ids[done : done + count], twice=self._settings.recall.while_reading)
            done += count
            if on_chunk is not None:
                on_chunk(count)

    def prompt(self, ids: Sequence[int], on_chunk: Callable[[int], None] | None = None) -> Tensor:
        """Read a prompt and return the logits [vocabulary] of the token after it; its last pass recalls.

        An answer never fails because memory does: where there is no room for the prompt it is a recorded gap.
        """
        if not len(ids):
            return self.next_logits()
        last = min(len(ids), PROMPT_PASS_TOKENS, self.geometry.chunk_tokens)
        with self._room.for_a_prompt():
            self.read(ids[: len(ids) - last], on_chunk)
            self._pass_and_commit(ids[len(ids) - last :], twice=True)
        if on_chunk is not None:
            on_chunk(last)
        return self.next_logits()

    def next_logits(self) -> Tensor:
        """Logits, float32 [vocabulary], of the next token."""
        if self._logits is None:
            if self._last_hidden is None:
                raise ValueError("expected at least one token read before logits are asked for, got none")
            self._logits = self._passes.logits(self._last_hidden)
        return self._logits

    def save_tail(self) -> None:
        """Make all that was read durable, so that a view or a new writer goes on from here."""
        if self.memory is None or self._saved_at == self.position:
            return
        filled = self.position % BLOCK_TOKENS
        partial = self.residents.block_bytes(self.position // BLOCK_TOKENS) if filled else None
        logits = self.next_logits().cpu().numpy() if self.position else None
        self.memory.save_tail(self.position, logits, self._last_id, partial)
        self._saved_at = self.position

    def _pass_and_commit(self, ids: Sequence[int], *, twice: bool) -> None:
        tensor = torch.tensor([list(ids)], device=self.residents.shape.device)
        recall = twice and self.recalls is not None
        self.residents.clear_recalled()
        output = self._passes.run([self.plan(len(ids))], tensor)
        if recall and self.memory is not None:
            # What was read before may still be on its way: the recall's own timeout must not pay for that.
            self.memory.settle(self._settings.recall.timeout_s)
        self._send(tensor[0], output, 0, recall=recall, wait=True)
        if recall and self.recalls is not None and (newest := self.recalls.now()) is not None:
            self.residents.set_recalled(newest.blocks, newest.before)
            output = self._passes.run([self.plan(len(ids))], tensor)
        self.commit(ids, output, 0, wait=True)

    def plan(self, count: int, *, mass: bool = False) -> RowPass:
        """This row's part in a pass over its next `count` tokens.

        Args:
            mass: Take their attention mass even if no session asks for it.
        """
        layer = self._settings.probe.mass_layer_of(self.residents.shape.layers)
        roles = LayerRoles(self._memory_layers, layer if mass or MASS in self._signals else None)
        return RowPass(self.residents, self.residents.plan(count), self._parts, roles)

    def begin_decode(self) -> None:
        """Take the recall that falls due before the next token; if it did not come, attend to sinks and window."""
        newest = self.recalls.due() if self.recalls is not None else None
        if newest is not None:
            self.residents.set_recalled(newest.blocks, newest.before)
        elif self.recalls is not None and self.recalls.missing:
            self.residents.clear_recalled()

    def end_decode(self, token: int, output: PassOutput, row: int) -> None:
        """Send the token's vectors, ask for the next recall, and count the token as read."""
        ids = torch.tensor([token], device=self.residents.shape.device)
        self._send(ids, output, row, recall=True, wait=False)
        self.commit([token], output, row, wait=False)

    def commit(self, ids: Sequence[int], output: PassOutput, row: int, *, wait: bool) -> None:
        """The pass stands: advance, and put the blocks that it finished."""
        before = self.position // BLOCK_TOKENS
        self.residents.commit(len(ids))
        self._last_hidden, self._logits, self._last_id = output.hidden[row, -1], None, int(ids[-1])
        self.resident_tokens_max = max(self.resident_tokens_max, self.residents.resident_tokens)
        memory = self.memory
        if memory is None or memory.read_only:
            return
        for block in range(before, self.position // BLOCK_TOKENS):
            data = self.residents.block_bytes(block)
            self._room.hand_over(functools.partial(memory.put_block, block, data), wait=wait)

    def _send(self, ids: Tensor, output: PassOutput, row: int, *, recall: bool, wait: bool) -> None:
        if self.memory is None or self.recalls is None:
            return
        # A prompt's answer serves this very pass; a decode step's serves the one after the lag, whose window it must
        # meet.
        used_at = self.position if wait else self.position + 1 + self._settings.recall.lag_tokens
        start = self.geometry.window_start(used_at)
        ask: RecallAsk | None = self.recalls.ask() if recall else None
        record = StepRecord(
            first_position=self.position,
            ids=ids.cpu().numpy().astype(np.uint32),
            embeddings={PROBE: embeddings_of(output.probe[row])},
            signals=self._signals_of(ids, output, row),
            resident=(start, max(0, self.position + len(ids) - start)),
            recall=ask,
            text=self._texts(ids.tolist()) if self._texts is not None else (),
        )
        seq = self._room.hand_over(functools.partial(self.memory.append, record), wait=wait)
        if recall:
            self.recalls.asked(seq, start)

    def _signals_of(self, ids: Tensor, output: PassOutput, row: int) -> dict[str, npt.NDArray[np.float32]]:
        """Those of the pass's tokens that the session's policy looks at."""
        signals = {SURPRISAL: self._surprisal_of(ids, output.hidden[row])} if SURPRISAL in self._signals else {}
        if MASS in self._signals:
            mass = output.mass[row]
            assert mass is not None, "the mass layer ran without taking the mass"
            signals[MASS] = mass
        return signals

    def _surprisal_of(self, ids: Tensor, hidden: Tensor) -> npt.NDArray[np.float32]:
        """Surprisal of the pass's tokens; each is predicted by the vector of the token before it."""
        with torch.inference_mode():
            later = self._surprisal.from_hidden(hidden[:-1], ids[1:])
            if self._last_hidden is not None:
                first = self._surprisal.from_hidden(self._last_hidden[None], ids[:1])
            elif self._logits is not None:
                first = self._surprisal.from_logits(self._logits[None], ids[:1])
            else:
                first = torch.zeros(1, device=ids.device)
            return torch.cat((first, later)).cpu().numpy().astype(np.float32)


def decode(passes: ModelPasses, readers: Sequence[Reader], tokens: Sequence[int]) -> list[Tensor]:
    """Read one token in each row, all in one pass; logits [vocabulary] of each row's next token."""
    for reader in readers:
        reader.begin_decode()
    ids = torch.tensor(tokens, device=passes.decoder.shape.device)[:, None]
    output = passes.run([reader.plan(1) for reader in readers], ids)
    for row, (reader, token) in enumerate(zip(readers, tokens, strict=True)):
        reader.end_decode(token, output, row)
    # The output head is a large part of a small model: it is read once for all rows.
    logits = passes.logits(output.hidden[:, -1])
    for reader, row_logits in zip(readers, logits, strict=True):
        reader._logits = row_logits
    return list(logits)
