"""A tiny model, and the configuration of a small translator for it."""

from llamaindex_prag.translator.config import TranslatorConfig
from llamaindex_prag.translator.translator import Translator
from rag_backbone.loading.causal_lm import CausalLM
from tests.tiny import tiny_llama, tiny_tokenizer


def tiny_lm(make=tiny_llama) -> CausalLM:
    return CausalLM(make(), tiny_tokenizer(), name="tiny")


def shared_config(lm, **changes) -> TranslatorConfig:
    return TranslatorConfig.of(lm, "shared", width=16, tokens=3, heads=2, **changes)


def made(lm, kind="shared", **changes) -> Translator:
    form = {"width": 16, "tokens": 3, "heads": 2} if kind == "shared" else {}
    return Translator(lm, TranslatorConfig.of(lm, kind, **form | changes))
