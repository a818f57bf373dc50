"""Ask a document that is longer than what the model can see: `python examples/ask_long_document.py [FILE QUESTION]`.

A private memory server is started for as long as the script runs. The document is read once; the answer is streamed by
transformers' own `generate`, and each piece of it says which positions of the document were recalled for it.
"""

import argparse
from pathlib import Path

import torch

from attn_client.hf.attach import attach
from attn_client.hf.load import SMOLLM2, load_model
from attn_client.hf.streaming import RecallStreamer
from attn_client.memory import RecallAnswer
from attn_client.text import PromptForm, read_text

FILLER = "The path goes on along the river, past a mill and two farms, and nobody is to be seen for an hour. "
FACT = "The door code of the old observatory is 4971. "
DOCUMENT = FILLER * 15 + FACT + FILLER * 50
QUESTION = "The door code of the old observatory is"


def main() -> None:
    """Read, ask, and print the answer with what was recalled."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("file", nargs="?", type=Path, help="a text; a made-up one without it")
    arguments.add_argument("question", nargs="?", default=QUESTION, help="a question, or the beginning of its answer")
    arguments.add_argument("--model", default=SMOLLM2, help="a folder, or the demo's model")
    chosen = arguments.parse_args()
    document = read_text(chosen.file) if chosen.file is not None else DOCUMENT
    model, tokenizer = load_model(chosen.model)
    form = PromptForm()
    with attach(model, tokenizer=tokenizer) as attached:
        with attached.writer("document") as reader:
            reader.read(form.text_ids(tokenizer, document))
            print(f"{reader.position:,} tokens read, {reader.residents.resident_tokens:,} of them on the device\n")
        with attached.view("document") as reader:
            question = torch.tensor([form.question_ids(tokenizer, chosen.question)])
            print(chosen.question, end="", flush=True)
            model.generate(
                question,
                streamer=RecallStreamer(tokenizer, reader, tell),
                max_new_tokens=12,
                do_sample=False,
                pad_token_id=0,
            )
    print()


def tell(text: str, recalled: RecallAnswer | None) -> None:
    """Print a piece of the answer, after what it was recalled from."""
    if recalled is not None:
        places = ", ".join(f"{64 * one.block} to {64 * one.block + 63}" for one in recalled.blocks[:3])
        print(f"\n  [recalled: {places} ...]\n  ", end="")
    print(text, end="", flush=True)


if __name__ == "__main__":
    main()
