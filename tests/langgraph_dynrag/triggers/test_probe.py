"""A probe on hidden states: by hand, in a graph against a plain forward pass, in a preset file, and what is refused."""

import json
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch
from langchain_core.messages import AIMessage

from langgraph_dynrag import create_dynamic_rag
from langgraph_dynrag.drafts.draft import Draft, DraftView
from langgraph_dynrag.presets.file import PresetFile, belonging
from langgraph_dynrag.triggers import LearnedTrigger
from langgraph_dynrag.triggers.learned_model import LearnedModel
from langgraph_dynrag.triggers.probe import Probe
from rag_backbone.errors import ConfigurationError, SignalUnavailableError
from tests.langgraph_dynrag.running import events
from tests.langgraph_dynrag.scripted import ScriptedChatModel, WatchedRetriever
from tests.langgraph_dynrag.triggers.test_learned import PROMPT, SHORT, s

PROBE = Probe(1 / 2, (2.0, -1.0, 0.5), 0.25)
MODEL = LearnedModel("logistic", ("names",), (1.0, 0.5), (1.0, 2.0), 0.1, weights=(0.3, 4.0), probe=PROBE)


def test_log_odds_and_probability_by_hand():
    assert PROBE.log_odds(np.array([1.0, 2.0, -1.0], np.float32)) == pytest.approx(0.25 + 2 - 2 - 0.5)
    assert MODEL.uncalibrated((3.0, -0.25)) == pytest.approx(s(0.1 + 0.3 * 2 + 4 * (-0.25 - 0.5) / 2))


def test_the_trigger_reads_the_state_at_the_probes_depth():
    read = []

    def states(depths):
        read.append(depths)
        return np.array([[1.0, 2.0, -1.0]])

    draft = Draft(("It", " sank", "."), (-0.1, -0.2, -0.3))
    verdict = LearnedTrigger(MODEL).judge(DraftView("q", "", draft, 3, read_states=states))
    assert read == [(1 / 2,)]
    assert verdict.score == pytest.approx(s(0.1 - 0.3 + 4 * (-0.25 - 0.5) / 2))
    assert LearnedTrigger(MODEL).needs == {"logprob", "hidden_states"}
    assert "Probe(depth=0.5, width=3)" in repr(LearnedTrigger(MODEL))


def test_the_model_survives_json():
    assert LearnedModel.of(json.loads(json.dumps(asdict(MODEL)))) == MODEL


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"depth": 0}, "depth 0.0; a share"),
        ({"depth": 1.5}, "depth 1.5"),
        ({"weights": [1.0, float("nan")]}, "finite"),
        ({"weights": [1.0, "many"]}, "weights of a probe: .*finite"),
        ({"intercept": "0"}, "finite"),
        ({"layer": 3}, "an object with depth, weights, intercept"),
    ],
)
def test_what_is_no_probe_is_refused(changes, message):
    with pytest.raises(ConfigurationError, match=message):
        Probe.of({**asdict(PROBE), **changes})


def test_a_model_needs_an_input_for_its_probe():
    with pytest.raises(ConfigurationError, match="with 2 inputs has 1 means"):
        replace(MODEL, means=(1.0,))


def test_a_probe_of_another_model_is_refused():
    with pytest.raises(ConfigurationError, match="have 4 numbers and the probe 3 weights"):
        PROBE.log_odds(np.zeros(4))


def test_in_a_graph_the_state_is_that_of_a_plain_forward_pass(chat, tmp_path):
    width = chat.lm.model.config.hidden_size
    weights = tuple(np.random.default_rng(0).normal(size=width).tolist())
    model = LearnedModel(
        "logistic", ("names",), (0.0, 0.0), (1.0, 1.0), 0.0, (0.0, 1.0), probe=Probe(1 / 2, weights, 0.0)
    )
    seen = []

    class Watching(LearnedTrigger):
        """Keeps the views."""

        def judge(self, view):
            seen.append(view)
            return super().judge(view)

    graph = create_dynamic_rag(chat, WatchedRetriever(), preset="flare", trigger=Watching(model, 1.0), **SHORT)
    out = graph.invoke({"question": "Who built the bridge?"})
    scores = [v["score"] for v in events(out, "verdict") if v["score"] is not None]
    assert scores
    inner = chat.lm.model
    before = list(chat.encode([*PROMPT.messages(seen[0].question, seen[0].passages), AIMessage("")]).ids)
    for view, score in zip(seen, scores, strict=True):
        ids = [*before, *view.unit.token_ids]
        with torch.no_grad():
            hidden = inner(torch.tensor([ids]), output_hidden_states=True).hidden_states
        depth = round(inner.config.num_hidden_layers / 2)
        state = hidden[depth][0, len(before) - 1 : -1].mean(0).double().numpy()
        assert score == pytest.approx(s(float(np.dot(weights, state))), abs=1e-4)
        before = ids
    found = PresetFile("flare", "2wikimultihopqa", "paper", LearnedTrigger(model, 0.4), belonging(chat, PROMPT), {})
    path = found.write(tmp_path / "probe.json")
    assert PresetFile.read(path).trigger == LearnedTrigger(model, 0.4)


def test_a_model_behind_a_server_is_refused():
    with pytest.raises(SignalUnavailableError, match="needs hidden_states, which ScriptedChatModel cannot give"):
        create_dynamic_rag(
            ScriptedChatModel(replies=[]), WatchedRetriever(), preset="flare", trigger=LearnedTrigger(MODEL), **SHORT
        )
