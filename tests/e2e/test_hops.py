"""Links followed from a hit, from settings to answer: attended to, told apart, and within the budget."""

import dataclasses
import uuid

from attn_client.embedded import EmbeddedServer
from attn_client.generate import Answer, ask
from attn_client.hf.attach import attach
from attn_client.settings import BookmarkSettings, RecallSettings, Settings
from tests.e2e.models import byte_tokenizer, random_ids, tiny_model
from tests.e2e.settings import SMALL

# A passage that the question begins, one that goes on from that passage's end, and much between and around them.
ASKED, SHARED, FAR = (random_ids(24, seed=seed) for seed in range(3))
BETWEEN = [random_ids(500, seed=seed) for seed in range(10, 13)]
IDS = [*BETWEEN[0], *ASKED, *SHARED, *BETWEEN[1], *SHARED, *FAR, *BETWEEN[2]]


def _settings(hops: int) -> Settings:
    recall = RecallSettings(top_blocks=4, neighbours=0, budget_blocks=6, timeout_s=20.0, hops=hops, hop_blocks=2)
    bookmarks = BookmarkSettings(policy="every", centring_tokens=256)
    return dataclasses.replace(SMALL, recall=recall, bookmarks=bookmarks)


def _asked(server: EmbeddedServer, session: str, hops: int) -> Answer:
    model, tokenizer = tiny_model("llama"), byte_tokenizer()
    with (
        attach(model, server.address, _settings(hops), tokenizer=tokenizer) as attached,
        attached.view(session) as reader,
    ):
        return ask(attached.passes, reader, tokenizer, ASKED, 4)


def test_blocks_along_links_come_with_their_paths(server: EmbeddedServer) -> None:
    """Proves that `recall.hops` brings blocks by links, no more than `hop_blocks`, and none unless it is set."""
    name = f"hops-{uuid.uuid4().hex}"
    with (
        attach(tiny_model("llama"), server.address, _settings(0), tokenizer=byte_tokenizer()) as attached,
        attached.writer(name) as reader,
    ):
        reader.read(IDS)
    plain, hopping = _asked(server, name, 0), _asked(server, name, 2)
    assert not plain.degraded
    assert not hopping.degraded
    assert "hop" not in {block.reached for block in plain.recalled}
    hops = [block for block in hopping.as_json()["recalled"] if block["reached"] == "hop"]
    assert 1 <= len(hops) <= 2
    hits = {block.block for block in hopping.recalled if block.reached == "trail"}
    for block in hops:
        assert block["via_block"] in hits
        # From the hit's bookmark to the block's own.
        assert len(block["path"]) >= 2
    # Four hits leave room for two hops in a budget of six: no hit gives way.
    assert len(plain.recalled) == 4
    assert len(hopping.recalled) == 4 + len(hops)
