"""`attach`: give a Hugging Face model a memory for the length of a `with` block.

    with attach(model, "unix:///run/memsvc.sock", tokenizer=tokenizer) as attached:
        with attached.writer("notes"):
            output = model.generate(ids)

A call of `generate` that names no cache goes to the one reader that is open; where several are,
`past_key_values=attached.cache(*readers)` says to which.

Nothing is imported for its effect, nothing is patched for other models, and leaving the block restores the model.
"""

import contextlib
import enum
import functools
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from attn_client.attention import AttentionParts
from attn_client.embedded import EmbeddedServer
from attn_client.errors import InvalidSettings, MemoryFailure, UnsupportedCall
from attn_client.hf.cache import MemoryCache, routed
from attn_client.hf.fingerprint import fingerprint_of
from attn_client.hf.passes import ModelPasses, attached
from attn_client.hf.support import Decoder, decoder_of, rope_table
from attn_client.memory import MemoryClient
from attn_client.reader import Reader
from attn_client.session_spec import session_spec
from attn_client.settings import Settings
from attn_client.token_text import TokenTexts
from attn_client.window import Geometry
from protos.memsvc.v1 import types_pb2

_LOGGER = logging.getLogger(__name__)


class NoMemory(enum.Enum):
    """Type of `NO_MEMORY`: attach without any server."""

    NO_MEMORY = enum.auto()


NO_MEMORY: Final = NoMemory.NO_MEMORY


@dataclass(frozen=True)
class Attached:
    """An attached model and its memory, if it has one; sessions are opened as readers."""

    passes: ModelPasses
    parts: AttentionParts
    settings: Settings
    fingerprint: types_pb2.Fingerprint
    memory: MemoryClient | None
    # Of the tokenizer, if there is one: for sessions that keep text.
    texts: TokenTexts | None = None
    # Those of the blocks that are entered now, in order.
    _open: list[Reader] = field(default_factory=list)

    @property
    def client(self) -> MemoryClient:
        """The connection to the memory server. Raises InvalidSettings where there is none."""
        if self.memory is None:
            raise InvalidSettings("expected a model attached to a memory server, got NO_MEMORY")
        return self.memory

    @contextlib.contextmanager
    def writer(self, session: str, *, append: bool = True) -> Iterator[Reader]:
        """Read on in a session, making it if it is not there. Leaving the block saves a tail.

        Args:
            append: False refuses a session that holds tokens already.

        Raises:
            MemoryRefused: Another writer has it (SESSION_HAS_WRITER) or another model made it (FINGERPRINT_MISMATCH).
            InvalidSettings: It holds tokens and `append` is False.
        """
        info = self.client.create_session(session, session_spec(self.fingerprint, self.settings.bookmarks))
        if info.tokens and not append:
            raise InvalidSettings(
                f"expected a new session, got {session!r} with {info.tokens} tokens: ask it without --file, or --append"
            )
        with contextlib.closing(self.client.open_writer(session, self.fingerprint)) as memory:
            reader = Reader(self.passes, self.parts, self.settings, memory, self.texts)
            with self._opened(reader):
                yield reader
            reader.save_tail()

    @contextlib.contextmanager
    def temporary_writer(self, session: str) -> Iterator[Reader]:
        """Read in a new session that is deleted when the block is left, or left behind by a server that went away."""
        self.client.create_session(session, session_spec(self.fingerprint, self.settings.bookmarks))
        try:
            with contextlib.closing(self.client.open_writer(session, self.fingerprint)) as memory:
                reader = Reader(self.passes, self.parts, self.settings, memory, self.texts)
                with self._opened(reader):
                    yield reader
        finally:
            try:
                self.client.delete_session(session)
            except MemoryFailure as error:
                # What was said in the block stands without it.
                _LOGGER.warning("expected to delete temporary session %r, got: %s", session, error)

    @contextlib.contextmanager
    def view(self, session: str) -> Iterator[Reader]:
        """Read on from a session's newest tail without changing the session."""
        with contextlib.closing(self.client.open_view(session, self.fingerprint)) as memory:
            reader = Reader(self.passes, self.parts, self.settings, memory)
            with self._opened(reader):
                yield reader

    def without_memory(self) -> Reader:
        """The control: the same model with sinks and window only."""
        return Reader(self.passes, self.parts, self.settings, None)

    def cache(self, *readers: Reader) -> MemoryCache:
        """What `model.generate(..., past_key_values=...)` needs; one reader a row of the batch."""
        return MemoryCache(self.passes, readers)

    def generate(self, original: Callable[..., Any], *inputs: Any, **options: Any) -> Any:
        """`model.generate` while attached: with the cache of the one open reader if the call names none.

        Raises:
            UnsupportedCall: Several readers are open.
        """
        if options.get("past_key_values") is None and self._open:
            if len(self._open) > 1:
                expected = "past_key_values=attached.cache(*readers) while several readers are open"
                raise UnsupportedCall(f"expected {expected}, got none beside {len(self._open)}")
            options["past_key_values"] = self.cache(*self._open)
        return original(*inputs, **options)

    @contextlib.contextmanager
    def _opened(self, reader: Reader) -> Iterator[None]:
        self._open.append(reader)
        try:
            yield
        finally:
            self._open.remove(reader)


def parts_of(decoder: Decoder, settings: Settings) -> AttentionParts:
    """Rotary tables and bias weights that all rows of an attached model share."""
    tokens = Geometry.of(settings).table_tokens
    if settings.recall.positions == "true":
        tokens = max(tokens, decoder.trained_tokens)
    rope = rope_table(decoder, tokens)
    alpha = torch.full((decoder.heads,), settings.recall.alpha, dtype=torch.float32, device=decoder.shape.device)
    dtype = decoder.shape.dtype
    return AttentionParts(rope, rope.cos.to(dtype), rope.sin.to(dtype), alpha, settings.implementation)


@contextlib.contextmanager
def attach(
    model: PreTrainedModel,
    memory: MemoryClient | str | NoMemory | None = None,
    settings: Settings | None = None,
    *,
    tokenizer: PreTrainedTokenizerBase | None = None,
    data: Path | None = None,
) -> Iterator[Attached]:
    """Attach `model` to a memory server.

    Args:
        memory: A client, an address (`unix:///path` or `host:port`), or None for a private server that lives as long
            as the block. NO_MEMORY: none at all, sinks and window only.
        settings: Defaults to `Settings()`.
        tokenizer: Makes the fingerprint refuse sessions that another tokenizer made, and gives sessions that keep text
            the text of their tokens.
        data: Folder that a private server keeps its sessions in; without it they are forgotten with the server.

    Raises:
        UnsupportedModel, InvalidSettings: Before anything is started or changed; also for `keep_text` without a
            tokenizer.
        MemoryUnavailable: No server at the address.
    """
    settings = settings if settings is not None else Settings()
    if settings.bookmarks.keep_text and tokenizer is None:
        raise InvalidSettings("bookmarks.keep_text: expected a tokenizer beside it, got none")
    decoder = decoder_of(model, settings)
    with contextlib.ExitStack() as stack:
        if memory is None:
            memory = stack.enter_context(EmbeddedServer(data)).address
        elif data is not None:
            raise InvalidSettings(
                f"expected a data folder for a private server only, got {str(data)!r} beside a memory"
            )
        client = stack.enter_context(MemoryClient(memory)) if isinstance(memory, str) else memory
        passes = stack.enter_context(attached(decoder, settings.probe.layer))
        fingerprint = fingerprint_of(decoder, tokenizer, settings)
        known = client if isinstance(client, MemoryClient) else None
        texts = TokenTexts(tokenizer) if tokenizer is not None else None
        attachment = Attached(passes, parts_of(decoder, settings), settings, fingerprint, known, texts)
        stack.enter_context(_routed_calls(model, attachment))
        yield attachment


@contextlib.contextmanager
def _routed_calls(model: PreTrainedModel, attachment: Attached) -> Iterator[None]:
    """Let `model.generate` reach the readers: calls that carry a MemoryCache go to it, on this model object only."""
    # Typed by transformers as if it had no such method.
    generating: Any = model
    forward, generate = model.forward, generating.generate
    model.forward = functools.wraps(forward)(functools.partial(routed, forward))
    generating.generate = functools.wraps(generate)(functools.partial(attachment.generate, generate))
    try:
        yield
    finally:
        del model.forward, generating.generate
