"""Hidden states from a real vLLM, float32: equal to those of the in-process model, and enough for SeaKR and probes.

vLLM's CPU build cannot sample in a server that extracts states (docs/vllm.md), so another one writes.
"""

import json

import numpy as np
import pytest
import torch
from langchain_core.messages import HumanMessage

from benchmarks.vllm_server import VLLMServer
from langgraph_dynrag import HiddenStateServer, LocalChatModel, ServerPolicy, create_dynamic_rag
from langgraph_dynrag.drafts.draft import Draft
from langgraph_dynrag.drafts.sampled_ends import SampleSpec
from langgraph_dynrag.generators.local import make_generator
from langgraph_dynrag.seakr.evidence_selection import LeastUncertain
from langgraph_dynrag.seakr.final_answer import SurerAnswer
from langgraph_dynrag.triggers import SelfAwareUncertainty
from rag_backbone.errors import ConfigurationError, SignalUnavailableError
from rag_backbone.loading.causal_lm import CausalLM
from rag_backbone.loading.embedded import embedded_model_folder
from tests.langgraph_dynrag.generators.tasks import task_of
from tests.vllm.test_vllm import QUESTION, chat, retriever  # noqa: F401 - a fixture

pytestmark = pytest.mark.vllm
LAYERS = (0, 14, 29)
MESSAGES = [HumanMessage("Who built the bridge of Hallin? Tell me his name and when he did it.")]
ACCEPTED = "The bridge of Hallin was built"


@pytest.fixture(scope="module")
def exact():
    return LocalChatModel.from_causal_lm(CausalLM.from_pretrained("embedded", device="cpu", dtype="float32"))


@pytest.fixture(scope="module")
def states(command, plugin, folder):
    if not plugin:
        pytest.skip("DYNPRAG_VLLM_PYTHON is not set: the Python of the server's environment, needed for the connector")
    extracting = {
        "method": "extract_hidden_states",
        "num_speculative_tokens": 1,
        "draft_model_config": {"hf_config": {"eagle_aux_hidden_state_layer_ids": [layer + 1 for layer in LAYERS]}},
    }
    (folder / "states").mkdir()
    writing = {
        "kv_connector": "HiddenStateFiles",
        "kv_connector_module_path": "langgraph_dynrag.generators.vllm_hidden_states",
        "kv_role": "kv_producer",
        "kv_connector_extra_config": {"shared_storage_path": str(folder / "states")},
    }
    options = ["--dtype", "float32", "--speculative-config", json.dumps(extracting)]
    options += ["--kv-transfer-config", json.dumps(writing)]
    running = VLLMServer(command, embedded_model_folder(), folder / "states.log", dict(plugin), options)
    with running:
        yield HiddenStateServer(running.url, folder / "states")


def from_transformers(lm, ids, layer):
    with torch.no_grad():
        return lm.model(torch.tensor([ids]), output_hidden_states=True).hidden_states[layer + 1][0].numpy()


def closeness(found, expected):
    """Return the greatest difference as a share of the greatest value."""
    return float(abs(found - expected).max() / abs(expected).max())


@pytest.mark.parametrize("cached", [False, True])
def test_the_states_are_those_of_transformers(states, exact, cached):
    ids = exact.get_token_ids("The mason Aldous Wray finished the bridge of Hallin in the spring of 1871. " * 6)
    found = states.states(ids, 50, LAYERS[:2])
    for layer, there in zip(LAYERS[:2], found, strict=True):
        assert there.shape == (50, exact.lm.model.config.hidden_size)
        assert closeness(there, from_transformers(exact.lm, ids, layer)[-50:]) < 1e-5
    assert states.depth == 30
    assert states.eos == exact.lm.tokenizer.eos_token_id
    assert not list(states.folder.iterdir())


def test_samples_are_read_as_in_process(server, states, exact):
    generator = make_generator(chat(server), frozenset({"end_states"}), ServerPolicy(states=states))
    spec = SampleSpec(samples=6, max_tokens=24)
    task = task_of(messages=MESSAGES, accepted=ACCEPTED)
    found = generator.sample_ends(task, spec, seed=3)
    assert found.states.shape == (6, exact.lm.model.config.hidden_size)
    assert len(set(found.texts)) > 1
    assert 0 < found.cost["tokens"] <= 6 * 24
    prompt = exact.encode([*task.messages, task.open_answer]).ids
    for text, state in zip(found.texts, found.states, strict=True):
        # A sampled text may be tokenised otherwise than it was written, which is rare in plain English.
        ids = [*prompt, *exact.get_token_ids(text), states.eos]
        assert closeness(state, from_transformers(exact.lm, ids, 14)[-1]) < 1e-3


@pytest.mark.parametrize("accepted", ["", ACCEPTED])
def test_a_draft_is_read_as_in_process(server, states, exact, accepted):
    needs = frozenset({"hidden_states"})
    there = make_generator(chat(server), needs, ServerPolicy(states=states))
    here = make_generator(exact, needs)
    unit = Draft((" by the mason Aldous Wray", " in 1871."), (-0.1, -0.2))
    task = task_of(messages=MESSAGES, accepted=accepted)
    depths = (0.5, 1 / 30)
    found, expected = there.hidden_states(task, unit, depths), here.hidden_states(task, unit, depths)
    assert found.shape == expected.shape == (2, exact.lm.model.config.hidden_size)
    for one, other in zip(found, expected, strict=True):
        assert closeness(one, other) < 1e-3


@pytest.mark.parametrize("asynchronous", [False, True])
async def test_seakr_answers_from_servers(server, states, retriever, asynchronous):  # noqa: F811
    few = SampleSpec(samples=4, max_tokens=24)
    built = create_dynamic_rag(
        chat(server),
        retriever,
        preset="seakr",
        trigger=SelfAwareUncertainty(-1e9, few),  # every sentence searches
        evidence_selector=LeastUncertain(few),
        final_answer=SurerAnswer(few),
        server=ServerPolicy(states=states),
    )
    result = await built.ainvoke(QUESTION) if asynchronous else built.invoke(QUESTION)
    kinds = {e["type"] for e in result["trace"]}
    assert {"verdict", "retrieval", "evidence_choice", "final_answer"} <= kinds
    assert all(np.isfinite(e["score"]) for e in result["trace"] if e["type"] == "verdict" and "score" in e)
    assert result["answer"]
    assert result["sources"]


def test_what_cannot_work_is_refused(server, states, folder):
    with pytest.raises(
        SignalUnavailableError, match=r"after the layers \[0, 14, 29\].*\[7\] are needed; start it with"
    ):
        states.states([1, 2, 3], 1, [7])
    with pytest.raises(ConfigurationError, match="gives no hidden states"):
        HiddenStateServer(server.url, folder / "states").check()
    (folder / "another").mkdir()
    with pytest.raises(ConfigurationError, match="is this folder the server's shared_storage_path"):
        HiddenStateServer(states.base_url, folder / "another", seconds=2.0).check()
    with pytest.raises(SignalUnavailableError, match="gives only 'layer'"):
        generator = make_generator(chat(server), frozenset({"end_states"}), ServerPolicy(states=states))
        generator.sample_ends(task_of(), SampleSpec(state="mlp"), seed=1)
