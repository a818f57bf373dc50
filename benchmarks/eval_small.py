"""Do answers come from memory? `make eval-small`.

10 texts of 12,000 tokens from two sources, none of them the demo's. In each of the first 8 five plain facts in five
wordings, in each of all 10 four look-alikes of one template; all past the sinks and before the window. Default
settings. Each text is read once with memory and once without (`--no-memory`); each fact is asked of both.
"""

import argparse
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from attn_client.hf.attach import NO_MEMORY, Attached, attach
from attn_client.hf.load import load_model
from benchmarks import texts
from benchmarks.evaluation import Outcome, PlantedText, asked_with_memory, asked_without, planted_text
from benchmarks.facts import look_alikes, plain_facts
from benchmarks.summary import Row, record

TEXT_TOKENS = 12_000
PLAIN_TEXTS, ALL_TEXTS = 8, 10
PLAIN_FACTS, LOOK_ALIKES = 5, 4
SEED = 20_260
COMMAND = "make eval-small"


@dataclass
class Tally:
    """Outcomes of both kinds of facts, with memory and without."""

    plain: list[Outcome] = field(default_factory=list)
    alike: list[Outcome] = field(default_factory=list)

    def add(self, outcomes: Sequence[Outcome], plain: int) -> None:
        """Take a text's outcomes; the first `plain` of them are plain facts."""
        self.plain += outcomes[:plain]
        self.alike += outcomes[plain:]


def main() -> None:
    """Run, print a line a question, and record the figures."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--texts", type=int, default=ALL_TEXTS, help="texts to read, from the first")
    arguments.add_argument("--seed", type=int, default=SEED, help="of facts and places; other seeds are not recorded")
    chosen = arguments.parse_args()
    model, tokenizer = load_model("smollm2")
    with tempfile.TemporaryDirectory(prefix="eval-small-") as folder:
        with attach(model, None, tokenizer=tokenizer, data=Path(folder)) as attached:
            planted = [_text(tokenizer, number, chosen.seed) for number in range(chosen.texts)]
            with_memory = _ask_all(attached, tokenizer, planted)
        with attach(model, NO_MEMORY, tokenizer=tokenizer) as alone:
            without = _ask_all(alone, tokenizer, planted)
    _report(with_memory, without)
    if chosen.texts == ALL_TEXTS and chosen.seed == SEED:
        _record(with_memory, without)


def _text(tokenizer: object, number: int, seed: int) -> PlantedText:
    sources = (texts.library_docstrings, texts.plays)
    source = sources[number % len(sources)]
    paragraphs = source()
    # Texts of one source begin at different places and do not overlap.
    share = len(paragraphs) // (ALL_TEXTS // len(sources))
    begins = number // len(sources) * share
    plain = plain_facts(seed + number, PLAIN_FACTS) if number < PLAIN_TEXTS else []
    facts = [*plain, *look_alikes(seed + 100 + number, LOOK_ALIKES)]
    label = f"{source.__name__} {number} (seed {seed + number})"
    return planted_text(tokenizer, label, paragraphs[begins:], facts, TEXT_TOKENS, seed + number)


def _ask_all(attached: Attached, tokenizer: object, planted: Sequence[PlantedText]) -> Tally:
    tally = Tally()
    for text in planted:
        began = time.monotonic()
        if attached.memory is None:
            reader = attached.without_memory()
            reader.read(text.ids)
            outcomes = list(asked_without(attached, tokenizer, reader, text))
        else:
            session = text.label.replace(" ", "-").replace("(", "").replace(")", "")
            with attached.writer(session) as reader:
                reader.read(text.ids)
            outcomes = list(asked_with_memory(attached, tokenizer, session, text))
        print(f"{text.label}: {sum(o.right for o in outcomes)} of {len(outcomes)}, {time.monotonic() - began:.0f} s")
        for outcome in outcomes:
            print(
                f"  {'right' if outcome.right else 'WRONG'} gold {'recalled' if outcome.recalled_gold else 'absent'}: "
                f"{outcome.fact.sentence} <- {outcome.answer.strip()!r}",
                flush=True,
            )
        tally.add(outcomes, sum(1 for fact in text.facts if "magic numbers" not in fact.sentence))
    return tally


def _right(outcomes: Sequence[Outcome]) -> int:
    return sum(outcome.right for outcome in outcomes)


def _report(with_memory: Tally, without: Tally) -> None:
    for name, outcomes in (
        ("plain facts with memory", with_memory.plain),
        ("plain facts without", without.plain),
        ("look-alikes with memory", with_memory.alike),
        ("look-alikes without", without.alike),
    ):
        gold = sum(outcome.recalled_gold for outcome in outcomes)
        print(f"{name}: {_right(outcomes)} of {len(outcomes)} right, gold recalled in {gold}")


def _record(with_memory: Tally, without: Tally) -> None:
    seeds = [SEED + number for number in range(ALL_TEXTS)]
    figures = (
        ("answers with memory, of 40", _right(with_memory.plain), "at least 36", _right(with_memory.plain) >= 36),
        ("answers without memory, of 40", _right(without.plain), "at most 4", _right(without.plain) <= 4),
        (
            "look-alike answers with memory, of 40",
            _right(with_memory.alike),
            "at least 28",
            _right(with_memory.alike) >= 28,
        ),
    )
    record([Row(3, name, value, goal, holds, COMMAND, seeds=seeds) for name, value, goal, holds in figures])


if __name__ == "__main__":
    main()
