"""Attention mass: taken by every implementation, sent where the session's policy asks for it, and nowhere else."""

import dataclasses
import uuid

import numpy as np
import numpy.typing as npt
import pytest
import torch

from attn_client.embedded import EmbeddedServer
from attn_client.errors import InvalidSettings
from attn_client.hf.attach import NO_MEMORY, attach
from attn_client.hf.passes import ModelPasses, PassOutput
from attn_client.reader import Reader
from attn_client.settings import BookmarkSettings, Implementation, ProbeSettings, Settings
from tests.e2e.models import random_ids, tiny_model
from tests.e2e.settings import SMALL

TOKENS = 700
IDS = random_ids(TOKENS, seed=3)


def _with(bookmarks: BookmarkSettings, implementation: Implementation = Implementation.SDPA) -> Settings:
    return dataclasses.replace(SMALL, bookmarks=bookmarks, implementation=implementation)


ATTENTION = _with(BookmarkSettings(policy="attention", coverage=0.2, centring_tokens=256))


@pytest.fixture
def outputs(monkeypatch: pytest.MonkeyPatch) -> list[PassOutput]:
    """What each pass of any attached model gives, in order."""
    seen: list[PassOutput] = []
    original = ModelPasses.run

    def run(passes: ModelPasses, *arguments: object) -> PassOutput:
        seen.append(original(passes, *arguments))  # type: ignore[arg-type]
        return seen[-1]

    monkeypatch.setattr(ModelPasses, "run", run)
    return seen


def _mass_of(implementation: Implementation) -> npt.NDArray[np.float32]:
    """Mass of the passes of a reading without memory."""
    own = dataclasses.replace(ATTENTION, implementation=implementation)
    with attach(tiny_model("qwen3"), NO_MEMORY, own) as attached:
        reader, found = attached.without_memory(), []
        for first in range(0, TOKENS, 64):
            ids = IDS[first : first + 64]
            output = attached.passes.run([reader.plan(len(ids), mass=True)], torch.tensor([ids]))
            reader.commit(ids, output, 0, wait=True)
            assert output.mass[0] is not None
            found.append(output.mass[0])
    return np.concatenate(found)


def test_both_eager_ways_of_attending_give_the_same_mass() -> None:
    """Proves that the signal does not depend on how attention is computed.

    Both sum in float32: scores of about 10 over 64 products err by at most 1e-4, and weights by that share of them.
    """
    sdpa, reference = _mass_of(Implementation.SDPA), _mass_of(Implementation.REFERENCE)
    assert sdpa.shape == (TOKENS,)
    assert np.allclose(sdpa, reference, rtol=1e-3, atol=0)
    # Made-up text has no token that stands out much, and none that is like all others.
    assert 0.5 < sdpa.mean() < 2.0
    assert sdpa.std() > 0.01


def _read(server: EmbeddedServer, settings: Settings) -> int:
    """Bookmarks of a session that the text was read into, a prompt at its end."""
    name = f"mass-{uuid.uuid4().hex}"
    with attach(tiny_model("llama"), server.address, settings) as attached:
        with attached.writer(name) as reader:
            reader.read(IDS[:600])
            reader.prompt(IDS[600:])
            assert reader.degraded == ()
        bookmarks = attached.client.get_session(name).bookmarks
        attached.client.delete_session(name)
    return bookmarks


def _weighed(*names: str) -> Settings:
    weights = tuple((name, 1.0) for name in names)
    return _with(BookmarkSettings(policy="hybrid", coverage=0.2, centring_tokens=256, hybrid_weights=weights))


@pytest.mark.parametrize("settings", [ATTENTION, _weighed("attention"), _weighed("surprisal", "attention")])
def test_a_session_that_asks_for_mass_is_sent_it_and_bookmarks_its_share(
    settings: Settings, server: EmbeddedServer, outputs: list[PassOutput]
) -> None:
    """Proves the policy from the model to the bookmarks, alone and weighed, and that every pass takes the mass."""
    bookmarks = _read(server, settings)
    assert all(output.mass[0] is not None for output in outputs)
    # A fifth of 700, and how far a threshold that starts without a history is off.
    assert 0.1 * TOKENS < bookmarks < 0.35 * TOKENS


def test_what_is_bookmarked_by_mass_does_not_depend_on_when_it_is_read(server: EmbeddedServer) -> None:
    """Proves that the same text in the same passes has the same bookmarks each time."""
    assert _read(server, ATTENTION) == _read(server, ATTENTION)


def test_no_pass_takes_mass_that_nobody_asked_for(server: EmbeddedServer, outputs: list[PassOutput]) -> None:
    """Proves that sessions of other policies do not pay for it."""
    _read(server, SMALL)
    assert outputs
    assert all(output.mass == (None,) for output in outputs)


def test_the_layer_of_the_mass_is_the_one_that_is_said() -> None:
    """Proves that `probe.mass_layer` is where it is taken, and that a layer the model lacks is refused in one line."""
    own = dataclasses.replace(ATTENTION, probe=ProbeSettings(layer=1, mass_layer=3))
    with attach(tiny_model("llama"), NO_MEMORY, own) as attached:
        reader, found = attached.without_memory(), []
        for layer in (3, 1):
            other = dataclasses.replace(own, probe=ProbeSettings(layer=1, mass_layer=layer))
            row = Reader(attached.passes, attached.parts, other, None).plan(64, mass=True)
            found.append(attached.passes.run([row], torch.tensor([IDS[:64]])).mass[0])
        straight = attached.passes.run([reader.plan(64, mass=True)], torch.tensor([IDS[:64]])).mass[0]
    assert np.array_equal(straight, found[0])
    assert not np.array_equal(straight, found[1])
    none = dataclasses.replace(own, probe=ProbeSettings(layer=1, mass_layer=4))
    with (
        pytest.raises(InvalidSettings, match=r"probe.mass_layer: expected 0 to 3, got 4"),
        attach(tiny_model("llama"), NO_MEMORY, none),
    ):
        pass
