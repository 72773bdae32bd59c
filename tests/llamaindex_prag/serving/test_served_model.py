"""Tests that a served model answers like the same local model, and reloads adapters that the server has lost."""

import asyncio
from concurrent.futures import ThreadPoolExecutor

import pytest

from llamaindex_prag.adapters.adapter import Adapter, AdapterKey, text_hash
from llamaindex_prag.adapters.recipe import get_recipe
from llamaindex_prag.llama_index import ParametricLLM, ParametricNodePostprocessor
from llamaindex_prag.llama_index.markers import marker
from llamaindex_prag.parametric_model import ParametricModel
from llamaindex_prag.serving.document_names import DocumentSet
from llamaindex_prag.serving.served_model import ServedModel
from rag_backbone.engine.requests import Request
from rag_backbone.errors import AdapterError, ConfigurationError, ServerError, ServerUnavailableError
from tests.llamaindex_prag.made import random_values
from tests.llamaindex_prag.serving.conftest import QUESTION, TEXTS, both, ids, request_name


@pytest.mark.parametrize("numbers", [(), (0,), (1, 2), (3, 4, 5)])
@pytest.mark.parametrize("merge", ["mean", "orthogonal"])
def test_a_served_model_generates_the_same_tokens_as_the_local_model(served, local, lm, numbers, merge):
    request = both(served, lm, numbers, merge=merge)
    found, wanted = served.lm.engine.generate(request), lm.engine.generate(request)
    assert found.token_ids == wanted.token_ids
    assert found.text == wanted.text
    assert found.finish_reason == wanted.finish_reason
    assert [s.logprob for s in found.steps] == pytest.approx([s.logprob for s in wanted.steps], abs=1e-4)


def test_a_served_model_adds_what_adapters_share_once(server, lm, store, tmp_path):
    start = AdapterKey(lm.fingerprint, "a" * 64, text_hash("warm-up"))
    recipe = get_recipe("prag", start=start.digest)
    layout = ParametricModel(lm, store, recipe=recipe, max_adapters=3).attach().layout
    served = ServedModel(server.url, store, lm=lm, recipe=recipe, max_adapters=3, folder=tmp_path / "out")
    for i, key in enumerate([*map(served.key, TEXTS), start]):
        store.put(key, Adapter(layout, random_values(layout, i, 0.1), 2.0), {})
    request = both(served, lm, (1, 2), merge="shared_once")
    assert request.adapters.keys[-1] == start
    assert served.lm.engine.generate(request).token_ids == lm.engine.generate(request).token_ids


def test_strategies_that_a_server_cannot_follow_are_refused_by_name(server, served, lm, store):
    two = [served.key(text) for text in TEXTS[:2]]
    with pytest.raises(ConfigurationError, match="ensemble='mixture' mixes .* a server answers with one"):
        served.ensemble(two)
    with pytest.raises(ConfigurationError, match="ensemble='product'"):
        ParametricLLM(base_url=server.url, lm=lm, store=store, recipe="prag", ensemble="product")
    resolving = ServedModel(server.url, store, lm=lm, recipe="prag", loading="resolve")
    with pytest.raises(ConfigurationError, match="loading='resolve' cannot express"):
        resolving.select(two, merge="shared_once")


def test_requests_without_adapters_use_the_base_model(served, server, lm):
    served.lm.engine.generate(both(served, lm, (0,)))
    served.lm.engine.generate(Request(ids(lm), 4))
    assert [body["model"] for body in server.asked("/completions")][-1] == "base"
    assert all(body["prompt"] == ids(lm) for body in server.asked("/completions"))


def test_an_adapter_that_keeps_being_unloaded_finally_raises(served, server, lm, monkeypatch):
    monkeypatch.setattr(server, "answer", lambda path, body: {"text": "Success"})  # reports success, loads nothing
    with pytest.raises(ServerError, match="refused the request .HTTP 404.*prag-"):
        served.lm.engine.generate(both(served, lm, (0,)))
    assert len(server.asked("/completions")) == 3


def test_concurrent_calls_each_use_their_own_documents(served, lm):
    requests = [both(served, lm, (i % 6,)) for i in range(12)]
    alone = [lm.engine.generate(r).token_ids for r in requests]
    assert len({tuple(a) for a in alone}) > 3
    with ThreadPoolExecutor(6) as pool:  # six document sets, of which two stay loaded
        assert list(pool.map(lambda r: served.lm.engine.generate(r).token_ids, requests)) == alone


def test_replaced_values_get_a_different_name(served, store, local, lm):
    before = request_name(served, both(served, lm, (0,)))
    store.put(local.key(TEXTS[0]), Adapter(local.layout, random_values(local.layout, 50, 0.1), 2.0), {})
    assert request_name(served, both(served, lm, (0,))) != before


def test_with_resolve_loading_the_model_name_encodes_the_documents(server, lm, store):
    served = ServedModel(server.url, store, lm=lm, recipe="prag", loading="resolve", secret="sixteen letters!")
    selection = served.select([served.key(TEXTS[0]), served.key(TEXTS[1])])
    with served.name_of(selection) as name:
        assert DocumentSet.parse(name, b"sixteen letters!").selection(store.model) == selection
    with pytest.raises(ServerError, match="HTTP 404"):  # this server has no resolver
        served.lm.engine.generate(Request(ids(lm), 4, adapters=selection))
    assert not server.asked("/load_lora_adapter")


# -------------------------------------------------------------------------------------------- rejected before any work


def test_impossible_options_are_rejected_with_a_remedy(server, lm, store, tmp_path):
    with pytest.raises(ConfigurationError, match="has no model 'other'; it has base"):
        ServedModel(server.url, store, model="other")
    with pytest.raises(ConfigurationError, match="loading is 'pull'"):
        ServedModel(server.url, store, loading="pull")
    with pytest.raises(ConfigurationError, match="belongs to loading='resolve'"):
        ServedModel(server.url, store, secret="sixteen letters!")
    alone = ServedModel(server.url, store, recipe="prag", max_adapters=1, folder=tmp_path / "out")
    with pytest.raises(AdapterError, match="2 adapters were selected; a call may use 1"):
        alone.select([alone.key(TEXTS[0]), alone.key(TEXTS[1])])
    with pytest.raises(ConfigurationError, match="needs the model's weights, and only the server's address is known"):
        _ = alone.local
    with pytest.raises(ConfigurationError, match="^missing='train' needs the model's weights; name it$"):
        alone.check_missing("train", "; name it")
    with pytest.raises(ConfigurationError, match="^missing='translate' needs a translator; give one. No translator"):
        alone.check_missing("translate", "; give one")
    alone.check_missing("context", "")
    with pytest.raises(ConfigurationError, match="injection='auto' weighs"):
        alone.check_weighing()
    server.stop()
    with pytest.raises(ServerUnavailableError, match="could not answer"):
        ServedModel(server.url, store)


# ---------------------------------------------------------------------------------------------------------- LlamaIndex


@pytest.fixture
def llm(server, lm, store, tmp_path):
    return ParametricLLM(
        base_url=server.url,
        lm=lm,
        store=store,
        recipe="prag",
        max_adapters=3,
        max_new_tokens=12,
        server={"folder": str(tmp_path / "out")},
    )


def prompt(model, *numbers):
    return "\n".join([*(marker(model.key(TEXTS[i])) for i in numbers), QUESTION])


@pytest.mark.parametrize("numbers", [(), (0,), (1, 2)])
def test_a_served_llm_gives_the_same_answers_as_a_local_one(llm, local, lm, store, numbers):
    here = ParametricLLM(lm=lm, store=store, recipe="prag", max_adapters=3, max_new_tokens=12)
    asked = prompt(local, *numbers)
    wanted = here.complete(asked)
    found = llm.complete(asked)
    assert (found.text, found.additional_kwargs) == (wanted.text, wanted.additional_kwargs)
    assert "".join(r.delta for r in llm.stream_complete(asked)) == wanted.text
    assert asyncio.run(llm.acomplete(asked)).text == wanted.text


def test_the_postprocessor_works_with_a_served_model(llm, server, local):
    from llama_index.core.schema import NodeWithScore, TextNode

    nodes = [NodeWithScore(node=TextNode(text=t), score=0.5) for t in (*TEXTS[:2], "A road nobody knows.")]
    post = ParametricNodePostprocessor(llm=llm, missing="context", max_active=2)
    texts = [n.node.get_content("llm") for n in post.postprocess_nodes(nodes, query_str=QUESTION)]
    assert ["⟦adapter" in t for t in texts] == [True, True, False]
    llm.complete("\n\n".join([*texts, QUESTION]))
    assert server.asked("/completions")[-1]["model"].startswith("prag-")
    with pytest.raises(ConfigurationError, match="injection='auto' weighs"):
        ParametricNodePostprocessor(llm=llm, injection="auto")


def test_a_missing_adapter_is_trained_with_local_weights(llm, local, lm):
    from llama_index.core.schema import NodeWithScore, TextNode

    text = "A road was built by Ada in 1954."
    ParametricNodePostprocessor(llm=llm).postprocess_nodes(
        [NodeWithScore(node=TextNode(text=text), score=0.5)], query_str=QUESTION
    )
    assert local.key(text) in local.store
    assert llm.model.local is local


def test_a_served_llm_is_serialised_by_its_address(llm, server, lm, store):
    data = llm.to_dict()
    assert (data["base_url"], data["server"]["model"]) == (server.url, "base")
    again = ParametricLLM.from_dict({**data, "store": store}, lm=lm)
    assert again.complete(QUESTION).text == llm.complete(QUESTION).text


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"store": None}, "base_url needs the adapters' store"),
        ({"translator": "folder"}, "a translator reads documents with the model's weights"),
        ({"base_url": None}, "server tells how a server is used"),
    ],
)
def test_inconsistent_options_of_an_llm_are_rejected(server, lm, store, options, reason):
    given = {"base_url": server.url, "lm": lm, "store": store, "server": {"keep": 2}, **options}
    with pytest.raises(ConfigurationError, match=reason):
        ParametricLLM(**given)
