"""Tiny random models and a tokenizer trained on a few lines, created in milliseconds."""

import functools
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
)

_TEMPLATE = (
    "{% for m in messages %}<|start|>{{ m['role'] }}\n{{ m['content'] }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|start|>assistant\n{% endif %}"
)
_CORPUS = [
    "The lighthouse keeper wrote a letter to her brother in the capital.",
    "Question: Who built the bridge? Answer: The bridge was built by an engineer. So the answer is an engineer.",
    "In 1954 the river rose, and the town moved to higher ground. Nobody came back.",
    "Passages: [1] A river. [2] A town. Use them where they help. user assistant system",
    "Ein Fluß, ein Städtchen, ça va, naïve café, 東京, Привет, שלום, 😀",
]


@functools.cache
def tiny_tokenizer() -> PreTrainedTokenizerFast:
    """Return a byte-level BPE tokenizer with 400 entries and a chat template."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=["<|pad|>", "<|start|>", "<|end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_CORPUS * 4, trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<|pad|>", bos_token="<|start|>", eos_token="<|end|>"
    )
    fast.chat_template = _TEMPLATE
    return fast


def _sizes() -> dict:
    return {
        "vocab_size": len(tiny_tokenizer()),
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 8,
        "max_position_embeddings": 2048,
        "pad_token_id": 0,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "tie_word_embeddings": False,
        "initializer_range": 0.4,  # with the default, distributions are so flat that rounding decides the argmax
    }


def _made(kind, config):
    torch.manual_seed(7)
    return kind(config).float().eval()


def tiny_llama(**changes):
    return _made(LlamaForCausalLM, LlamaConfig(**{**_sizes(), **changes}))


def tiny_llama_of_lines():
    """Return a model that ends a line, and with it a sentence, every few tokens."""
    model = tiny_llama()
    with torch.no_grad():
        model.lm_head.weight[tiny_tokenizer().encode("\n", add_special_tokens=False)] *= 2
    return model


def tiny_qwen2(**changes):
    return _made(Qwen2ForCausalLM, Qwen2Config(**{**_sizes(), **changes}))


def tiny_gemma3(**changes):
    sizes = {
        **_sizes(),
        "sliding_window": 8,
        "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
    }
    return _made(Gemma3ForCausalLM, Gemma3TextConfig(**{**sizes, "query_pre_attn_scalar": 8, **changes}))


def tiny_folder(folder: Path) -> Path:
    """Save a tiny model and its tokenizer in Transformers' format and return the folder."""
    tiny_llama().save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder
