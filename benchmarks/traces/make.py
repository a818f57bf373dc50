"""Make a trace: `python -m benchmarks.traces.make --tokens 32768 --texts plays library --out DIR`.

The model reads planted text as ingest does: window only, a chunk at a time; then unrelated text; then, each from there,
every question. On a GPU where torch has one.
"""

import argparse
import contextlib
import random
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from attn_client.hf.attach import NO_MEMORY, Attached, attach
from attn_client.hf.load import load_model
from attn_client.reader import PROMPT_PASS_TOKENS
from attn_client.salience import Surprisal
from attn_client.text import PromptForm
from benchmarks import texts
from benchmarks.summary import cpu_name, gpu_name
from benchmarks.traces.format import Source, TracedFact, TraceError
from benchmarks.traces.kinds import KINDS, make_facts
from benchmarks.traces.planting import planted
from benchmarks.traces.writer import Rows, TraceWriter

# Paragraphs that are taken from one source before the next one's turn.
TURN_PARAGRAPHS = 40
UNRELATED_TOKENS = 256
LAYERS = (3, 6, 12)


class TracedReader:
    """Reads tokens with sinks and window only, and gives what the model makes of each.

    Args:
        attached: Without memory.
        layers: Whose normalised input is the embedding.
        mass: Whether rows have attention mass.
    """

    def __init__(self, attached: Attached, layers: Sequence[int], *, mass: bool = False) -> None:
        self._attached, self._layers, self._mass = attached, tuple(layers), mass
        self._reader = attached.without_memory()
        probe = attached.settings.probe
        self._surprisal = Surprisal(attached.passes.decoder.head, probe.salience_vocabulary)
        self._last_hidden: Tensor | None = None

    def fork(self) -> "TracedReader":
        """One that goes on from here on its own."""
        copy = TracedReader(self._attached, self._layers, mass=self._mass)
        copy._reader, copy._last_hidden = self._reader.fork(), self._last_hidden
        return copy

    def read(self, ids: Sequence[int]) -> Iterator[Rows]:
        """Rows of these tokens, a chunk at a time; chunks end where the reader's own do."""
        chunk, done = self._reader.geometry.chunk_tokens, 0
        while done < len(ids):
            count = min(chunk - self._reader.position % chunk, len(ids) - done)
            yield self._pass(ids[done : done + count])
            done += count

    def prompt(self, ids: Sequence[int]) -> Iterator[Rows]:
        """The same of a prompt, whose last pass covers as many of its tokens as one can, as the reader's own does."""
        last = min(len(ids), PROMPT_PASS_TOKENS, self._reader.geometry.chunk_tokens)
        yield from self.read(ids[: len(ids) - last])
        yield self._pass(ids[len(ids) - last :])

    def _pass(self, ids: Sequence[int]) -> Rows:
        passes, reader = self._attached.passes, self._reader
        tensor = torch.tensor([list(ids)], device=passes.decoder.shape.device)
        reader.residents.clear_recalled()
        with _captured(passes.decoder.layers, self._layers) as embeddings:
            output = passes.run([reader.plan(len(ids), mass=self._mass)], tensor)
        surprisal = self._signal(tensor[0], output.hidden[0])
        reader.commit(ids, output, 0, wait=True)
        self._last_hidden = output.hidden[0, -1]
        return Rows(
            np.asarray(ids, dtype=np.uint32),
            surprisal.float().cpu().numpy(),
            {layer: rows[0].float().cpu().numpy() for layer, rows in embeddings.items()},
            output.mass[0],
        )

    def _signal(self, ids: Tensor, hidden: Tensor) -> Tensor:
        with torch.inference_mode():
            if self._last_hidden is not None:
                return self._surprisal.from_hidden(torch.cat((self._last_hidden[None], hidden[:-1])), ids)
            # Nothing predicts the first token of a stream.
            later = self._surprisal.from_hidden(hidden[:-1], ids[1:])
            return torch.cat((torch.zeros(1, device=later.device), later))


@dataclass(frozen=True)
class Wanted:
    """What a trace is made of. `texts` name sources of `SOURCES`; `facts` is how many of each kind; `mass` adds the
    attention mass.
    """

    tokens: int
    texts: tuple[str, ...]
    unrelated: str
    kinds: tuple[str, ...]
    facts: int
    layers: tuple[int, ...]
    seed: int
    mass: bool = False

    @property
    def label(self) -> str:
        """What it is, for people."""
        return f"{self.tokens} tokens of {' and '.join(self.texts)}, {self.facts} facts each of {', '.join(self.kinds)}"


SOURCES: dict[str, Callable[[], list[str]]] = {
    "reference": texts.language_reference,
    "library": texts.library_docstrings,
    "plays": texts.plays,
}


def make_trace(attached: Attached, tokenizer: Any, wanted: Wanted, folder: Path) -> None:
    """Read the text and its questions, and write the trace.

    Raises:
        ValueError: Texts too short, or not so many facts of a kind.
        TraceError: The folder holds a trace already.
    """
    ids, traced = _planted(attached, tokenizer, wanted)
    unrelated = PromptForm().question_ids(tokenizer, "\n\n".join(islice(SOURCES[wanted.unrelated](), 100)))
    decoder = attached.passes.decoder
    with TraceWriter(folder, wanted.layers, decoder.hidden_size, mass=wanted.mass) as writer:
        reader = TracedReader(attached, wanted.layers, mass=wanted.mass)
        for rows in reader.read([*ids, *unrelated[:UNRELATED_TOKENS]]):
            writer.append(rows)
        for number, fact in enumerate(traced):
            first = writer.rows
            for rows in reader.fork().prompt(PromptForm().question_ids(tokenizer, fact.question)):
                writer.append(rows)
            traced[number] = replace(fact, question_first=first, question_tokens=writer.rows - first)
        writer.finish(_source(attached, wanted), traced)


def main(arguments: Sequence[str]) -> int:
    """Make one trace; an error is one line."""
    wanted, model_name, folder = _parsed(arguments)
    model, tokenizer = load_model(model_name)
    if torch.cuda.is_available():
        model.to("cuda")  # type: ignore[arg-type]
    try:
        with attach(model, NO_MEMORY, tokenizer=tokenizer) as attached:
            make_trace(attached, tokenizer, wanted, folder)
    except (ValueError, TraceError) as error:
        print(error, file=sys.stderr)
        return 1
    print(f"{folder}: {wanted.label}")
    return 0


def _parsed(arguments: Sequence[str]) -> tuple[Wanted, str, Path]:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.traces.make", description=__doc__)
    parser.add_argument("--tokens", type=int, default=32_768, help="of the text, facts included")
    parser.add_argument("--texts", nargs="+", choices=sorted(SOURCES), default=["plays", "library"])
    parser.add_argument("--unrelated", choices=sorted(SOURCES), default="reference", help="read before each question")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--facts", type=int, default=20, help="of each kind")
    parser.add_argument("--layers", type=int, nargs="+", default=list(LAYERS))
    parser.add_argument("--mass", action="store_true", help="save each token's attention mass, too")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--model", default="smollm2", help="a folder, or smollm2")
    parser.add_argument("--out", type=Path, required=True, help="folder of the trace")
    chosen = parser.parse_args(arguments)
    if chosen.tokens < 1 or chosen.facts < 1:
        parser.error(f"expected --tokens and --facts of at least 1, got {chosen.tokens} and {chosen.facts}")
    kinds, layers = tuple(chosen.kinds), tuple(sorted(set(chosen.layers)))
    texts_read = tuple(chosen.texts)
    wanted = Wanted(
        chosen.tokens, texts_read, chosen.unrelated, kinds, chosen.facts, layers, seed=chosen.seed, mass=chosen.mass
    )
    return wanted, chosen.model, chosen.out


def _planted(attached: Attached, tokenizer: Any, wanted: Wanted) -> tuple[list[int], list[TracedFact]]:
    """Ids of the text, and the facts with their blocks; their questions are not read yet."""
    facts = [fact for kind in wanted.kinds for fact in make_facts(kind, wanted.seed, wanted.facts)]
    sentences = [sentence for fact in facts for sentence in fact.sentences]
    random.Random(wanted.seed).shuffle(sentences)
    text = planted(tokenizer, _mixed(wanted), sentences, wanted.tokens, attached.settings.window, wanted.seed)
    gold = dict(zip(sentences, text.gold, strict=True))
    traced = [
        TracedFact(
            fact.kind, fact.sentences, fact.question, fact.answer, tuple(gold[one] for one in fact.sentences), 0, 0
        )
        for fact in facts
    ]
    return text.ids, traced


def _mixed(wanted: Wanted) -> list[str]:
    """Paragraphs of the sources in turns, each source from a place that the seed picks and around its end."""
    rng, turns = random.Random(wanted.seed), []
    for name in wanted.texts:
        paragraphs = SOURCES[name]()
        begin = rng.randrange(len(paragraphs))
        turned = [*paragraphs[begin:], *paragraphs[:begin]]
        turns.append([turned[i : i + TURN_PARAGRAPHS] for i in range(0, len(turned), TURN_PARAGRAPHS)])
    longest = max(len(own) for own in turns)
    return [paragraph for i in range(longest) for own in turns if i < len(own) for paragraph in own[i]]


def _source(attached: Attached, wanted: Wanted) -> Source:
    mark, settings = attached.fingerprint, attached.settings
    on_gpu = attached.passes.decoder.shape.device.type == "cuda"
    return Source(
        model=mark.model,
        tokenizer=mark.tokenizer,
        layers=wanted.layers,
        dims=attached.passes.decoder.hidden_size,
        text_tokens=wanted.tokens,
        unrelated_tokens=UNRELATED_TOKENS,
        sink_tokens=settings.window.sink_tokens,
        window_tokens=settings.window.window_tokens,
        chunk_tokens=settings.window.chunk_tokens,
        salience_vocabulary=settings.probe.salience_vocabulary,
        seeds=(wanted.seed,),
        label=wanted.label,
        device=gpu_name() if on_gpu else cpu_name(),
        mass_layer=settings.probe.mass_layer_of(attached.passes.decoder.shape.layers) if wanted.mass else None,
    )


@contextlib.contextmanager
def _captured(decoder_layers: torch.nn.ModuleList, layers: Sequence[int]) -> Iterator[dict[int, Tensor]]:
    """Normalised inputs, [rows, count, H], of the layers in the passes of the block."""
    found: dict[int, Tensor] = {}

    def keep(layer: int) -> Callable[[object, object, Tensor], None]:
        return lambda _module, _inputs, output: found.__setitem__(layer, output)

    with contextlib.ExitStack() as undo:
        for layer in layers:
            norm: Any = decoder_layers[layer].input_layernorm
            undo.callback(norm.register_forward_hook(keep(layer)).remove)
        yield found


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
