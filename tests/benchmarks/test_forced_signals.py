"""Signals from reading a sentence again, against a plain pass over the whole text."""

import numpy as np
import pytest
import torch

from benchmarks.draft_points import EXEMPLARS
from benchmarks.forced_signals import ForcedSignals, forced_signals
from benchmarks.further_features import margins_of
from benchmarks.runs import load_chat
from langgraph_dynrag.drafts.draft import Draft, DraftView
from langgraph_dynrag.prompts import reasoned_prompt
from langgraph_dynrag.triggers.probe import DEPTHS

QUESTION, BEFORE, SENTENCE = "When was the ferry built?", "The ferry is old.", " She was built in 1973."


@pytest.fixture(scope="module")
def chat(model):
    return load_chat(str(model), "float32")


def test_margins_and_states_are_those_of_a_pass_over_the_whole_text(chat):
    found = ForcedSignals(chat).of(QUESTION, BEFORE, SENTENCE)
    sentence = chat.get_token_ids(SENTENCE)
    prompt = chat.encode(reasoned_prompt(EXEMPLARS).messages(QUESTION, ())).ids
    whole = [*prompt, *chat.get_token_ids(BEFORE), *sentence]
    with torch.no_grad():
        out = chat.lm.model(torch.tensor([whole]), output_hidden_states=True)
    first = len(whole) - len(sentence) - 1  # predicts the sentence's first token
    margins = []
    for i, token in enumerate(sentence):
        logprobs = out.logits[0, first + i].log_softmax(-1).tolist()
        margins.append(logprobs[token] - max(p for t, p in enumerate(logprobs) if t != token))
    assert found.margins == pytest.approx(margins, abs=1e-3)
    layers = chat.lm.model.config.num_hidden_layers
    for depth, states in zip(DEPTHS, found.states, strict=True):
        expected = out.hidden_states[round(depth * layers)][0, first:-1].mean(0)
        assert states == pytest.approx(expected.numpy(), abs=1e-4)


def test_signals_of_a_file_are_kept_and_split_by_sentence(chat, monkeypatch):
    class Asked:
        text = QUESTION

    rows = [{"question": Asked(), "points": [{"before": "", "sentence": s} for s in ("Old.", SENTENCE)]}]
    found = forced_signals(chat, "some", rows)
    assert [len(f.margins) for f in found] == [len(chat.get_token_ids(s)) for s in ("Old.", SENTENCE)]
    monkeypatch.setattr(ForcedSignals, "of", None)  # a second call reads the file
    again = forced_signals(chat, "some", rows)
    assert [f.margins for f in again] == [pytest.approx(f.margins) for f in found]
    assert np.allclose([f.states for f in again], [f.states for f in found], atol=1e-2)


def test_the_least_margin_of_new_names_is_that_of_their_tokens():
    pieces = ("The", " ferry", " of", " Vold", " sank", " in", " 1973", ".")
    view = DraftView("Where did the ferry of Vold sink?", "", Draft(pieces, (-0.1,) * 8), 8)
    margins = (5.0, 4.0, 3.0, 0.1, 2.0, 2.0, 0.7, 6.0)
    assert margins_of(view, margins) == {"least_margin": 0.1, "least_new_name_margin": 0.7}  # Vold is not new
    assert margins_of(view, ()) == {"least_margin": None, "least_new_name_margin": None}
