"""The client of a hidden-state server, against a small one that computes the states of a tiny model.

`tests/vllm/test_hidden_states.py` has the same against vLLM.
"""

import numpy as np
import pytest
import torch
from langchain_openai import ChatOpenAI

from langgraph_dynrag import HiddenStateServer, ServerPolicy, create_dynamic_rag
from langgraph_dynrag.assembly import check_served_states
from langgraph_dynrag.drafts.sampled_ends import SampleSpec
from langgraph_dynrag.generators.local import make_generator
from langgraph_dynrag.generators.served_states import _Sample
from langgraph_dynrag.generators.server_policy import Capabilities
from langgraph_dynrag.triggers import SelfAwareUncertainty
from rag_backbone.errors import ConfigurationError, ServerUnavailableError, SignalUnavailableError
from tests.langgraph_dynrag.generators.served import chat
from tests.langgraph_dynrag.generators.states_server import serving_states
from tests.langgraph_dynrag.generators.tasks import task_of
from tests.langgraph_dynrag.scripted import WatchedRetriever
from tests.openai_server import OpenAIServer, knowing


@pytest.fixture
def served(tmp_path):
    with serving_states(tmp_path) as running:
        yield running


def test_states_of_the_last_tokens_are_read_and_their_files_deleted(served, tmp_path):
    handler, url = served
    server = HiddenStateServer(url, tmp_path)
    ids = [5, 9, 3, 7, 8]
    found = server.states(ids, 2, [1, 0])
    with torch.no_grad():
        expected = handler.lm.model(torch.tensor([ids]), output_hidden_states=True).hidden_states
    np.testing.assert_allclose(found[0], expected[2][0, -2:].numpy(), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(found[1], expected[1][0, -2:].numpy(), rtol=1e-5, atol=1e-5)
    assert (server.depth, server.eos) == (2, handler.lm.tokenizer.eos_token_id)
    assert len(handler.asked) == 2  # one of them asks what the server is
    assert handler.asked[-1] | {"prompt": ids, "max_tokens": 1, "model": "tiny"} == handler.asked[-1]
    assert not list(tmp_path.iterdir())
    with pytest.raises(SignalUnavailableError, match=r"\[0, 1\] \(from 0, of 2\), but \[5\].*layer_ids \[1,2,6\]"):
        server.states(ids, 1, [5])


@pytest.mark.parametrize("name", ["none", "../../etc/passwd", "A" * 32, 7])
def test_only_names_that_the_connector_makes_become_paths(served, tmp_path, name):
    handler, url = served
    handler.name = name
    with pytest.raises(ConfigurationError, match="gives no hidden states; see 'Hidden states' in docs/vllm.md"):
        HiddenStateServer(url, tmp_path).check()


def test_a_folder_that_is_not_the_servers_is_named(served, tmp_path):
    handler, url = served
    handler.writes = False
    with pytest.raises(ConfigurationError, match=f"wrote no .* to {tmp_path} within 0.1 s"):
        HiddenStateServer(url, tmp_path, seconds=0.1).check()
    with pytest.raises(ConfigurationError, match="folder is '.*nowhere', which does not exist here"):
        HiddenStateServer(url, tmp_path / "nowhere")
    with pytest.raises(ConfigurationError, match="seconds is 0"):
        HiddenStateServer(url, tmp_path, seconds=0)


def test_a_graph_with_an_unreachable_hidden_state_server_is_refused_when_it_is_built(tmp_path):
    unreachable = ChatOpenAI(base_url="http://127.0.0.1:9/v1", model="tiny", api_key="none")
    nowhere = HiddenStateServer("http://127.0.0.1:9/v1", tmp_path, model="tiny", seconds=1.0)
    with pytest.raises(ServerUnavailableError, match="the hidden-state server at http://127.0.0.1:9/v1"):
        create_dynamic_rag(
            unreachable,
            WatchedRetriever(),
            preset="seakr",
            server=ServerPolicy(states=nowhere, capabilities=Capabilities()),
        )


def test_a_graph_that_reads_states_names_the_server_that_can_give_them():
    unreachable = ChatOpenAI(base_url="http://127.0.0.1:9/v1", model="tiny", api_key="none")
    with pytest.raises(SignalUnavailableError, match=r"ServerPolicy\(states=HiddenStateServer\(...\)\), or trigger="):
        create_dynamic_rag(unreachable, WatchedRetriever(), preset="seakr")
    with pytest.raises(SignalUnavailableError, match=r"Use LocalChatModel, or trigger="):
        create_dynamic_rag(unreachable, WatchedRetriever(), preset="dragin")


@pytest.mark.parametrize(
    ("continues", "accepted", "spec", "adapters", "told"),
    [
        ("flags", "", SampleSpec(), None, "returns no token ids"),  # as every server but vLLM
        ("flags", "It was", SampleSpec(), None, "returns no token ids"),
        ("never", "It was", SampleSpec(), None, "does not continue answers"),
        ("flags", "", SampleSpec(state="mlp"), None, "gives only 'layer'"),
        ("flags", "", SampleSpec(), object(), "reads without the adapters"),
    ],
)
def test_a_chat_server_that_cannot_serve_states_is_told_apart(
    served, tmp_path, continues, accepted, spec, adapters, told
):
    policy = ServerPolicy(states=HiddenStateServer(served[1], tmp_path))
    with OpenAIServer(knowing("It was Joan.", lambda: server), continues=continues) as server:
        generator = make_generator(chat(server), frozenset({"end_states"}), policy)
        with pytest.raises(SignalUnavailableError, match=told):
            generator.sample_ends(task_of(accepted=accepted, adapters=adapters), spec, seed=1)


def test_adapters_are_refused_together_with_states_of_a_server(served, tmp_path):
    class Injects:
        adapters = object()

    policy = ServerPolicy(states=HiddenStateServer(served[1], tmp_path))
    with pytest.raises(ConfigurationError, match="reads without adapters"):
        check_served_states(Injects(), SelfAwareUncertainty().needs, policy)
    check_served_states(None, SelfAwareUncertainty().needs, policy)
    check_served_states(Injects(), frozenset({"logprob"}), policy)


@pytest.mark.parametrize(
    ("pieces", "characters", "finished", "ids", "text"),
    [
        ([("It", 1), (" was", 1), ("", 1)], None, "stop", [0, 1], "It was"),  # by its own end-of-sequence token, 2
        ([("It", 1), (" was", 1)], None, "length", [0], "It"),  # the end-of-sequence token replaces the last one
        ([("It.", 1), (" Then", 1), (" he", 1)], 3, None, [0], "It."),
        ([("It", 1), ("s.", 2), (" Then", 1)], 4, None, [0, 1, 2], "Its."),
        ([("It", 1), ("s. Then", 2)], 4, None, [0], "It"),  # tokens that arrived together cannot be parted
    ],
)
def test_a_sample_keeps_its_tokens_up_to_its_end(pieces, characters, finished, ids, text):
    sample, at = _Sample(), 0
    for piece, count in pieces:
        sample.push(piece, range(at, at + count), None)
        at += count
    sample.characters, sample.finished = characters, finished
    assert sample.kept(eos=2) == (ids, text)
    assert sample.ended
