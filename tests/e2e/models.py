"""Tiny random models of the supported kinds, and readings of random ids, built in the test: no downloads."""

from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen3Config,
    Qwen3ForCausalLM,
)

KINDS = ("llama", "qwen3")
VOCABULARY = 256
TRAINED_TOKENS = 2048
_SHAPE = {
    "vocab_size": VOCABULARY,
    "hidden_size": 96,
    "intermediate_size": 128,
    "num_hidden_layers": 4,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "head_dim": 64,
    "max_position_embeddings": TRAINED_TOKENS,
    "eos_token_id": None,
}


def tiny_model(kind: str, seed: int = 0, dtype: torch.dtype = torch.float32) -> PreTrainedModel:
    """A random model of a kind: 4 layers, 3 query heads a KV head; Qwen3 with QK-norm."""
    torch.manual_seed(seed)
    if kind == "qwen3":
        model: PreTrainedModel = Qwen3ForCausalLM(Qwen3Config(**_SHAPE))
    else:
        model = LlamaForCausalLM(LlamaConfig(**_SHAPE))
    return model.to(dtype).eval()


def random_ids(count: int, seed: int) -> list[int]:
    """Token ids of a text without meaning."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, VOCABULARY, (count,), generator=generator).tolist()


def byte_tokenizer() -> PreTrainedTokenizerFast:
    """One id a byte."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend = Tokenizer(models.BPE(vocab={letter: index for index, letter in enumerate(alphabet)}, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=backend)


def save_model(kind: str, folder: Path, seed: int = 0) -> Path:
    """A folder as `save_pretrained` writes it: model and byte tokenizer; `gpt2` is a kind that cannot be attached."""
    if kind == "gpt2":
        model: PreTrainedModel = GPT2LMHeadModel(GPT2Config(n_layer=1, n_head=2, n_embd=32, vocab_size=VOCABULARY))
    else:
        model = tiny_model(kind, seed, torch.bfloat16)
    model.save_pretrained(folder)
    byte_tokenizer().save_pretrained(folder)
    return folder
