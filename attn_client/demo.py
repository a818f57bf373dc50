"""`make demo`: SmolLM2-135M reads 24,000 tokens once and is asked for five facts that it can no longer see.

The text is the Python language reference that every Python carries. The same model with the same window, but no memory,
is asked the same questions.
"""

import os
import pydoc_data.topics
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from attn_client.cli.progress import peak_memory_mib, reading
from attn_client.generate import Answer, ask, greedy
from attn_client.hf.attach import NO_MEMORY, Attached, attach
from attn_client.hf.load import SMOLLM2, load_model
from attn_client.reader import Reader
from attn_client.settings import BLOCK_TOKENS
from attn_client.text import PromptForm

TEXT_TOKENS = 24_000
ANSWER_TOKENS = 12
SESSION = "demo"


@dataclass(frozen=True)
class PlantedFact:
    """A sentence that no training text holds, its question, and where it is planted as a share of the text."""

    question: str
    answer: str
    place: float

    @property
    def sentence(self) -> str:
        """The sentence as it stands in the text."""
        return f"{self.question} {self.answer}."


FACTS = (
    PlantedFact("The keeper of the northern lighthouse is called", "Orla Fennimore", 0.08),
    PlantedFact("The door code of the old observatory is", "4971", 0.25),
    PlantedFact("The silver compass of Bertil Ashgrove is hidden in the", "greenhouse", 0.43),
    PlantedFact("The parrot that belongs to Maren Tolliver is named", "Marmalade", 0.61),
    PlantedFact("For supper Quincy Brandt always cooks", "plum dumplings", 0.82),
)


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    fact: PlantedFact
    answer: Answer
    without: str


def main() -> None:
    """Read, ask, compare, and say how to go on."""
    console = Console()
    console.print(
        f"A 135M model reads {TEXT_TOKENS:,} tokens of the Python reference with five facts planted in them, once."
    )
    console.print("It holds 64 sink tokens and a window of 512; the rest goes to a private memory server.\n")
    model, tokenizer = load_model(SMOLLM2)
    ids = planted_ids(tokenizer)
    with attach(model, tokenizer=tokenizer) as attached:
        figures = _read_once(attached, ids)
        answers = [_asked(attached, tokenizer, fact) for fact in FACTS]
    with attach(model, NO_MEMORY, tokenizer=tokenizer) as alone:
        reader = alone.without_memory()
        with reading(reader, len(ids), "the same model without memory") as advance:
            reader.read(ids, advance)
        without = [_control(alone, reader, tokenizer, fact) for fact in FACTS]
    rows = [Row(fact, answer, said) for fact, answer, said in zip(FACTS, answers, without, strict=True)]
    console.print(f"\n{figures}; peak memory of this process {peak_memory_mib():,} MiB\n")
    console.print(_table(rows, tokenizer, ids))
    right = sum(_is_right(row.answer.text, row.fact) for row in rows)
    control = sum(_is_right(row.without, row.fact) for row in rows)
    console.print(f"\nRight with memory: {right} of {len(rows)}. Without: {control} of {len(rows)}.")
    command = "attn-client ask --file YOUR.txt --question 'The beginning of an answer that is in it'"
    console.print(
        f"Try your own text:\n  {Path(os.path.relpath('.venv/bin')) / command}", soft_wrap=True, highlight=False
    )


def planted_ids(tokenizer: Any) -> list[int]:
    """Ids of the text: paragraphs of the reference, the facts among them, cut to TEXT_TOKENS."""
    topics = pydoc_data.topics.topics
    paragraphs = "\n\n".join(topics[name] for name in sorted(topics)).split("\n\n")
    form = PromptForm()
    kept, length = [], 0
    for paragraph in paragraphs:
        kept.append(paragraph)
        length += len(form.question_ids(tokenizer, paragraph))
        if length >= TEXT_TOKENS:
            break
    for fact in sorted(FACTS, key=lambda fact: -fact.place):
        kept.insert(int(fact.place * len(kept)), fact.sentence)
    return form.text_ids(tokenizer, "\n\n".join(kept))[:TEXT_TOKENS]


def _read_once(attached: Attached, ids: list[int]) -> str:
    with attached.writer(SESSION) as reader, reading(reader, len(ids), "reading with memory") as advance:
        reader.read(ids, advance)
    info = attached.client.get_session(SESSION)
    return (
        f"{info.tokens:,} tokens read, {info.bookmarks:,} bookmarks ({100 * info.bookmarks / info.tokens:.1f} %) "
        f"in {info.chains:,} chains with {info.links:,} links, "
        f"{info.blocks:,} blocks, {info.stored_bytes >> 20:,} MiB stored"
    )


def _asked(attached: Attached, tokenizer: Any, fact: PlantedFact) -> Answer:
    with attached.view(SESSION) as reader:
        prompt = PromptForm().question_ids(tokenizer, fact.question)
        return ask(attached.passes, reader, tokenizer, prompt, ANSWER_TOKENS)


def _control(attached: Attached, reader: Reader, tokenizer: Any, fact: PlantedFact) -> str:
    copy = reader.fork()
    copy.prompt(PromptForm().question_ids(tokenizer, fact.question))
    said: str = tokenizer.decode(
        list(islice(greedy(attached.passes, copy, ANSWER_TOKENS, attached.passes.end_ids), None))
    )
    return said


def _is_right(said: str, fact: PlantedFact) -> bool:
    return " ".join(said.split()).lower().startswith(fact.answer.lower())


def _table(rows: list[Row], tokenizer: Any, ids: list[int]) -> Table:
    table = Table("question", "with memory", "without", "recalled passage", "resident", show_lines=True)
    for row in rows:
        table.add_row(
            row.fact.question,
            _first_line(row.answer.text),
            _first_line(row.without),
            _passage(row, tokenizer, ids),
            f"{row.answer.resident_tokens_max:,} tokens",
        )
    return table


def _passage(row: Row, tokenizer: Any, ids: list[int]) -> str:
    """Where the best recalled block stands, its score, and about 80 characters around the fact if it is there."""
    if not row.answer.recalled:
        return "nothing"
    best = row.answer.recalled[0]
    first = best.block * BLOCK_TOKENS
    passage = " ".join(tokenizer.decode(ids[first : first + BLOCK_TOKENS]).split())
    at = max(0, passage.find(row.fact.question[:24]))
    where = f"positions {first:,} to {first + BLOCK_TOKENS - 1:,}, score {best.score:.2f}"
    return f"{where}: ... {passage[at : at + 80]} ..."


def _first_line(said: str) -> str:
    stripped = said.strip()
    return stripped.splitlines()[0] if stripped else "(nothing)"


if __name__ == "__main__":
    main()
