"""What transformers itself computes, to compare the engine with."""

import torch

from rag_backbone.engine.adapters import SequenceAdapters
from rag_backbone.engine.signals import Signals
from tests.tiny import tiny_tokenizer

PROMPT = "The lighthouse keeper wrote a letter. Who built the bridge?"
BASE = SequenceAdapters(None)
EVERYTHING = Signals(entropy=True, attention=True, hidden_state=1, top_logprobs=3)


def ids_of(text: str) -> list[int]:
    return tiny_tokenizer()(text).input_ids


def by_generate(model, ids: list[int], tokens: int) -> list[int]:
    prompt = torch.tensor([ids])
    with torch.inference_mode():
        out = model.generate(prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=tokens, do_sample=False)
    return [t for t in out[0, len(ids) :].tolist() if t != 2]


def eager(model, ids: list[int]):
    """Run a forward pass with everything that transformers can output."""
    original = model.config._attn_implementation
    model.set_attn_implementation("eager")
    with torch.inference_mode():
        out = model(torch.tensor([ids]), output_attentions=True, output_hidden_states=True)
    model.set_attn_implementation(original)
    return out
