"""Text that a model's worker sends to a session that keeps it."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from attn_client.embedded import EmbeddedServer
from attn_client.errors import InvalidSettings
from attn_client.hf.attach import attach
from attn_client.settings import Settings
from protos.memsvc.v1 import graph_pb2, graph_pb2_grpc, types_pb2
from tests.e2e.models import byte_tokenizer, tiny_model
from tests.e2e.settings import SMALL
from tests.integration.server_process import TIMEOUT_S, connected

TEXT = "Call me Ishmael. Some years ago\u2014never mind how long precisely\u2014\U0001f40b\n" * 12


def _text_of(address: str, session: str) -> tuple[bytes, list[int]]:
    with connected(address) as stubs:
        graph = graph_pb2_grpc.GraphServiceStub(stubs.channel)
        whole = types_pb2.Range(first=0, count=100_000)
        told = graph.ReadTokens(graph_pb2.ReadTokensRequest(session=session, positions=whole), timeout=TIMEOUT_S)
    return told.text, np.frombuffer(told.text_sizes, dtype="<u4").tolist()


def _settings(keep_text: bool) -> Settings:
    return dataclasses.replace(SMALL, bookmarks=dataclasses.replace(SMALL.bookmarks, keep_text=keep_text))


def test_a_session_that_keeps_text_has_it_token_by_token(server: EmbeddedServer) -> None:
    """Proves with reading and a prompt that the text comes back as it was, split as the tokens are."""
    tokenizer = byte_tokenizer()
    ids = tokenizer(TEXT, add_special_tokens=False)["input_ids"]
    settings = _settings(True)
    with (
        attach(tiny_model("llama"), server.address, settings, tokenizer=tokenizer) as attached,
        attached.writer("kept") as reader,
    ):
        reader.read(ids[:500])
        reader.prompt(ids[500:])
    text, sizes = _text_of(server.address, "kept")
    assert (text, sizes) == (TEXT.encode(), [1] * len(ids))


def test_a_session_keeps_no_text_unless_it_was_asked_to(server: EmbeddedServer) -> None:
    """Proves the default: a tokenizer alone sends nothing."""
    tokenizer = byte_tokenizer()
    with (
        attach(tiny_model("llama"), server.address, _settings(False), tokenizer=tokenizer) as attached,
        attached.writer("unkept") as reader,
    ):
        reader.read(tokenizer(TEXT, add_special_tokens=False)["input_ids"])
    assert _text_of(server.address, "unkept") == (b"", [])


def test_keeping_text_needs_a_tokenizer(tmp_path: Path) -> None:
    """Proves that the setting is refused where there is nothing to tell the text by, before anything starts."""
    attaching = attach(tiny_model("llama"), f"unix://{tmp_path}/none", _settings(True))
    with pytest.raises(InvalidSettings, match=r"bookmarks\.keep_text: expected a tokenizer"), attaching:
        pass
