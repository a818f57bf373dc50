"""A memory server that is killed, and a model that goes on: `python examples/survive_outage.py`.

A text is read into a session. Then the server is killed while the model answers: it goes on with what it can still see,
and says so. The server is started again on the same folder: everything that was saved is there, and is recalled.
"""

import argparse
import contextlib
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from attn_client.generate import Answer, ask
from attn_client.hf.attach import Attached, attach
from attn_client.hf.load import SMOLLM2, load_model
from attn_client.settings import RecallSettings, Settings
from attn_client.text import PromptForm

FILLER = "The path goes on along the river, past a mill and two farms, and nobody is to be seen for an hour. "
TEXT = FILLER * 15 + "For supper Quincy Brandt always cooks plum dumplings. " + FILLER * 50
QUESTION = "For supper Quincy Brandt always cooks"
FORM = PromptForm()


def main() -> None:
    """Read, ask with the server killed, ask again with it back."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--model", default=SMOLLM2, help="a folder, or the demo's model")
    model, tokenizer = load_model(arguments.parse_args().model)
    with tempfile.TemporaryDirectory(prefix="survive-outage-") as folder:
        data, address = Path(folder) / "data", f"unix://{folder}/memory.sock"
        with (
            running(data, address) as server,
            attach(model, address, Settings(recall=RecallSettings(timeout_s=1.0)), tokenizer=tokenizer) as attached,
        ):
            with attached.writer("walk") as reader:
                reader.read(FORM.text_ids(tokenizer, TEXT))
            with attached.view("walk") as reader:
                server.kill()
                server.wait()
                prompt = FORM.question_ids(tokenizer, QUESTION)
                say("memory killed", ask(attached.passes, reader, tokenizer, prompt, 8))
        with running(data, address), attach(model, address, tokenizer=tokenizer) as attached:
            say("memory is back", from_memory(attached, tokenizer))


@contextlib.contextmanager
def running(data: Path, address: str) -> Iterator[subprocess.Popen[str]]:
    """`memsvc serve` over a folder that outlives it."""
    command = [sys.executable, "-m", "memsvc.cli", "serve", "--data", str(data), "--listen", address]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    try:
        server.stdout.readline()
        yield server
    finally:
        server.terminate()
        server.wait()
        server.stdout.close()


def from_memory(attached: Attached, tokenizer: object) -> Answer:
    """The answer of a view that begins where the text ended."""
    with attached.view("walk") as reader:
        return ask(attached.passes, reader, tokenizer, FORM.question_ids(tokenizer, QUESTION), 8)


def say(when: str, answer: Answer) -> None:
    """One line an answer."""
    how = f"degraded: {answer.degraded[0]}" if answer.degraded else f"{len(answer.recalled)} blocks recalled"
    print(f"{when}: {' '.join(answer.text.split())!r} ({how})", flush=True)


if __name__ == "__main__":
    main()
