"""One forward pass: its outputs, and the model as it was afterwards."""

import contextlib

import pytest
import torch

from rag_backbone.engine.adapters import SequenceAdapters
from rag_backbone.engine.model_runner import ModelRunner
from rag_backbone.engine.requests import Request
from tests.rag_backbone.engine.references import BASE, EVERYTHING, PROMPT, eager
from tests.rag_backbone.engine.shift import Shift, ShiftBackend
from tests.tiny import tiny_llama


def test_the_users_model_is_not_modified(engine, model):
    before = model.config._attn_implementation
    weights = {name: p.clone() for name, p in model.named_parameters()}
    hooks = [len(m._forward_hooks) for m in model.modules()]
    engine.generate(Request(PROMPT, 8, signals=EVERYTHING))
    with pytest.raises(RuntimeError, match="boom"), contextlib.ExitStack() as stack:
        stack.callback(setattr, model, "forward", model.forward)
        model.forward = lambda **_: (_ for _ in ()).throw(RuntimeError("boom"))
        engine.generate(Request("another prompt", 8, signals=EVERYTHING))
    assert model.config._attn_implementation == before
    assert [len(m._forward_hooks) for m in model.modules()] == hooks
    assert all(torch.equal(weights[name], p) for name, p in model.named_parameters())


def test_one_forward_pass_returns_what_was_requested_of_the_last_positions():
    model, ids = tiny_llama(), [5, 6, 7, 8]
    with torch.inference_mode():
        made = ModelRunner(model)(
            [ids], adapters=[BASE], keep=3, queries=2, hidden=[0, "model.norm"], following="entropy"
        )
    expected = eager(model, ids)
    assert torch.allclose(made.logits, expected.logits[:, -3:], atol=1e-4)
    assert torch.allclose(made.attention[0], expected.attentions[-1][0, :, -2:], atol=1e-5)
    assert torch.allclose(made.hidden[0], expected.hidden_states[1][:, -3:], atol=1e-4)
    assert torch.allclose(made.hidden["model.norm"], expected.hidden_states[-1][:, -3:], atol=1e-4)
    row = expected.logits[0, -1].log_softmax(-1)
    (following,) = made.next_tokens.rows()
    assert following.entropy == pytest.approx(-(row.exp() * row).sum().item(), abs=1e-4)
    assert following.likeliest == row.argmax().item()


def test_nothing_is_recorded_unless_requested():
    with torch.inference_mode():
        made = ModelRunner(tiny_llama())([[5, 6]], adapters=[BASE])
    assert (made.attention, made.hidden, made.next_tokens) == ([], {}, None)
    assert made.logits.shape[:2] == (1, 1)


def test_a_pass_without_adapters_uses_the_base_model_under_a_backend():
    model = tiny_llama()
    runner = ModelRunner(model)
    assert runner.mixes_adapters
    with torch.inference_mode():
        base = runner([[5, 6]], adapters=[BASE]).logits
        runner.backend = ShiftBackend(model)
        assert not runner.mixes_adapters  # the backend cannot tell packed sequences apart
        shifted = runner([[5, 6]], adapters=[SequenceAdapters(Shift(2.0))]).logits
        assert torch.equal(runner([[5, 6]], adapters=[BASE]).logits, base)
    assert not torch.allclose(shifted, base, atol=0.1)
