"""Tests that a served model answers like the same local model, and reloads adapters that the server has lost."""

import asyncio
from concurrent.futures import ThreadPoolExecutor

import pytest

from llamaindex_prag.adapters.adapter import Adapter, AdapterKey
from llamaindex_prag.llama_index import ParametricLLM, ParametricNodePostprocessor
from llamaindex_prag.llama_index.markers import marker
from llamaindex_prag.serving.document_names import DocumentSet
from llamaindex_prag.serving.loaded import LoadedAdapters
from llamaindex_prag.serving.served_model import ServedModel
from rag_backbone.engine.requests import Request
from rag_backbone.engine.sampling import Sampling
from rag_backbone.engine.signals import Signals
from rag_backbone.engine.stop_strings import Detokenizer
from rag_backbone.errors import AdapterError, ConfigurationError, ServerError, ServerUnavailableError
from tests.llamaindex_prag.made import random_values
from tests.llamaindex_prag.serving.conftest import TEXTS
from tests.openai_server import Fault

QUESTION = "Who built the bridge?"


@pytest.fixture
def served(server, lm, store, tmp_path):
    return ServedModel(server.url, store, lm=lm, recipe="prag", max_adapters=3, folder=tmp_path / "out", keep=2)


def ids(lm, text=QUESTION):
    return list(lm.tokenizer(text).input_ids)


def both(model, lm, numbers, **options):
    """Build a request that both the local and the served model can take."""
    selection = model.select([model.key(TEXTS[i]) for i in numbers], **options)
    return Request(ids(lm), 12, adapters=selection)


@pytest.mark.parametrize("numbers", [(), (0,), (1, 2), (3, 4, 5)])
@pytest.mark.parametrize("merge", ["mean", "orthogonal"])
def test_a_served_model_generates_the_same_tokens_as_the_local_model(served, local, lm, numbers, merge):
    request = both(served, lm, numbers, merge=merge)
    found, wanted = served.lm.engine.generate(request), lm.engine.generate(request)
    assert found.token_ids == wanted.token_ids
    assert found.text == wanted.text
    assert found.finish_reason == wanted.finish_reason
    assert [s.logprob for s in found.steps] == pytest.approx([s.logprob for s in wanted.steps], abs=1e-4)


def test_requests_without_adapters_use_the_base_model(served, server, lm):
    served.lm.engine.generate(both(served, lm, (0,)))
    served.lm.engine.generate(Request(ids(lm), 4))
    assert [body["model"] for body in server.asked("/completions")][-1] == "base"
    assert all(body["prompt"] == ids(lm) for body in server.asked("/completions"))


def test_options_reach_the_server(served, server, lm):
    sampling = Sampling(temperature=0.7, top_p=0.9, top_k=5, seed=3, logit_bias={7: -1.0})
    request = Request(ids(lm), 4, stop=["\n"], sampling=sampling, signals=Signals(top_logprobs=1))
    steps = served.lm.engine.generate(request).steps
    (body,) = server.asked("/completions")
    told = {"temperature": 0.7, "top_p": 0.9, "top_k": 5, "seed": 3, "logit_bias": {"7": -1.0}, "stop": ["\n"]}
    assert {name: body[name] for name in told} == told
    assert all(step.top_logprobs == ((step.token_id, pytest.approx(step.logprob)),) for step in steps)


def test_an_adapter_is_loaded_once_and_the_least_recently_used_one_is_unloaded(served, server, lm):
    for i in (0, 0, 1, 0, 2):  # two stay loaded
        served.lm.engine.generate(both(served, lm, (i,)))
    loads = [body["lora_name"] for body in server.asked("/load_lora_adapter")]
    assert len(loads) == len(set(loads)) == 3
    assert [body["lora_name"] for body in server.asked("/unload_lora_adapter")] == [loads[1]]
    assert set(server.adapters) == {loads[0], loads[2]}
    assert (served._loaded._folders.root / loads[1]).is_dir()  # within its grace period


def test_an_adapter_unloaded_by_another_client_is_loaded_again(served, server, lm):
    request = both(served, lm, (0, 1))
    before = served.lm.engine.generate(request)
    server.adapters.clear()
    assert served.lm.engine.generate(request).token_ids == before.token_ids
    assert len(server.asked("/load_lora_adapter")) == 2


def test_a_deleted_folder_is_written_again(served, server, lm):
    import shutil

    request = both(served, lm, (0,))
    before = served.lm.engine.generate(request)
    server.adapters.clear()
    shutil.rmtree(served._loaded._folders.root / request_name(served, request))
    assert served.lm.engine.generate(request).token_ids == before.token_ids


def request_name(served, request):
    with served.name_of(request.adapters) as name:
        return name


def test_an_adapter_that_keeps_being_unloaded_finally_raises(served, server, lm, monkeypatch):
    monkeypatch.setattr(server, "answer", lambda path, body: {"text": "Success"})  # reports success, loads nothing
    with pytest.raises(ServerError, match="refused the request .HTTP 404.*prag-"):
        served.lm.engine.generate(both(served, lm, (0,)))
    assert len(server.asked("/completions")) == 3


@pytest.mark.parametrize("then", ["reset", "stop", "garbage", "error"])
def test_a_broken_answer_resumes_at_the_exact_token(served, server, lm, then):
    request = both(served, lm, (0,))
    whole = lm.engine.generate(request)
    server.faults = [Fault(after=3, then=then)]
    assert served.lm.engine.generate(request).token_ids == whole.token_ids
    second = server.asked("/completions")[1]
    assert second["prompt"] == ids(lm) + whole.token_ids[:3]
    assert second["max_tokens"] == 12 - 3


@pytest.fixture
def knowing(server, lm, monkeypatch):
    """Make the server hold text back, generate one fixed text, and miss stop strings that start in a prompt."""
    monkeypatch.setattr("llamaindex_prag.serving.served_engine.pause_before", lambda *_, **__: 0.0)
    server.holds = True
    known = list(lm.tokenizer("The bridge of Hallin was built by Ada.", add_special_tokens=False).input_ids)
    detokenizer = Detokenizer(lm.tokenizer, ids(lm))
    texts = [detokenizer.push(token) for token in known]

    def says(body):
        done = len(body["prompt"]) - len(ids(lm))
        assert body["prompt"][len(ids(lm)) :] == known[:done]
        return [(text, 0.9, token) for text, token in zip(texts[done:], known[done:], strict=True)]

    server.says = says
    return texts


@pytest.mark.parametrize("stop", ["\n\nQuestion", "END", "!"])
@pytest.mark.parametrize("after", [1, 3, 6, -1])
def test_text_held_back_when_a_stream_broke_is_recovered(served, server, lm, knowing, after, stop):
    server.faults = [Fault(after=after % len(knowing)), Fault(after=0), Fault(after=1)]
    with served.lm.engine.stream(Request(ids(lm), 99, stop=[stop])) as stream:
        streamed = "".join(step.text for step in stream)
        found = stream.generation()
    assert streamed == found.text == "".join(knowing)
    assert [step.index for step in found.steps] == list(range(len(knowing)))


@pytest.mark.parametrize("at", [2, 4, 7])
def test_a_stop_string_that_spans_a_break_is_found(served, server, lm, knowing, at):
    begins = len("".join(knowing[:at])) - 1
    stop = "".join(knowing)[begins : begins + 4]
    server.faults = [Fault(after=at)]
    found = served.lm.engine.generate(Request(ids(lm), 99, stop=[stop]))
    assert (found.text, found.finish_reason, found.stop_string) == ("".join(knowing)[:begins], "stop", stop)


def test_without_a_tokenizer_tokens_without_text_are_generated_again(server, lm, store, tmp_path, knowing):
    alone = ServedModel(server.url, store, recipe="prag", folder=tmp_path / "out")
    server.faults = [Fault(after=5)]
    found = alone.lm.engine.generate(Request(ids(lm), 99, stop=["x" * 500]))  # long enough to hold everything back
    assert found.text == "".join(knowing)


def test_a_restarted_server_loads_the_adapters_again(served, server, lm):
    request = both(served, lm, (0,))
    whole = lm.engine.generate(request)
    stream = served.lm.engine.stream(request)
    first = next(stream)
    assert first.token_id == whole.token_ids[0]
    stream.close()
    server.stop()
    server.adapters.clear()
    served.lm.engine.attempts = 1
    with pytest.raises(ServerUnavailableError, match=server.url):
        served.lm.engine.generate(request)
    server.start()
    assert served.lm.engine.generate(request).token_ids == whole.token_ids


def test_a_pause_longer_than_the_limit_raises_at_once(served, server, lm):
    served.server.client.max_retries = 0
    server.faults = [Fault(429, {"Retry-After": "500"})]
    with pytest.raises(ServerUnavailableError, match="wait 500 s"):
        served.lm.engine.generate(Request(ids(lm), 4))


def test_two_clients_with_separate_folders_can_share_one_server(served, server, lm, store, tmp_path):
    other = ServedModel(server.url, store, lm=lm, recipe="prag", max_adapters=3, folder=tmp_path / "two", keep=2)
    request = both(served, lm, (0,))
    whole = lm.engine.generate(request).token_ids
    assert served.lm.engine.generate(request).token_ids == whole
    assert other.lm.engine.generate(request).token_ids == whole  # the name is loaded already
    for i in (1, 2, 3):  # the first client unloads the adapter of the request
        served.lm.engine.generate(both(served, lm, (i,)))
    assert other.lm.engine.generate(request).token_ids == whole


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
    with pytest.raises(ConfigurationError, match="^missing='translate' needs a translator; give one$"):
        alone.check_missing("translate", "; give one")
    alone.check_missing("context", "")
    with pytest.raises(ConfigurationError, match="injection='auto' weighs"):
        alone.check_weighing()
    server.stop()
    with pytest.raises(ServerUnavailableError, match="could not answer"):
        ServedModel(server.url, store)


def test_a_tokenizer_that_differs_from_the_servers_is_rejected(server, lm, store, tmp_path):
    server.tokenizer = lambda text, **_: type("E", (), {"input_ids": [1, 2, 3]})()
    served = ServedModel(server.url, store, lm=lm, recipe="prag", folder=tmp_path / "out")
    with pytest.raises(ConfigurationError, match="has another tokenizer than lm"):
        _ = served.lm.tokenizer


def test_a_store_of_another_model_is_rejected(server, lm, tmp_path):
    from llamaindex_prag.store.lmdb_store import LMDBStore

    with (
        LMDBStore(tmp_path / "other", model="f" * 64, map_size=1 << 22) as other,
        pytest.raises(ConfigurationError, match="Use the model that they were trained on"),
    ):
        ServedModel(server.url, other, lm=lm)


def test_a_folder_that_the_server_cannot_see_is_reported(server, lm, store, tmp_path):
    served = ServedModel(
        server.url, store, lm=lm, recipe="prag", folder=tmp_path / "out", server_folder="/mnt/elsewhere"
    )
    with pytest.raises(ServerError, match=r"finds no adapter at /mnt/elsewhere/prag-.*server_folder"):
        served.lm.engine.generate(both(served, lm, (0,)))


def test_the_error_of_a_server_without_runtime_loading_says_how_to_enable_it(served, server, lm):
    server.faults = [Fault(404, message="Not Found", path="/load_lora_adapter")]
    with pytest.raises(ServerError, match="VLLM_ALLOW_RUNTIME_LORA_UPDATING=True"):
        served.lm.engine.generate(both(served, lm, (0,)))


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


def test_the_repr_of_loaded_adapters_shows_their_number_and_server(served, lm):
    served.lm.engine.generate(both(served, lm, (0,)))
    assert isinstance(served._loaded, LoadedAdapters)
    assert repr(served._loaded).startswith("LoadedAdapters(1 of 2 in LoraServer('http://127")
    assert AdapterKey(served.store.model, served.recipe.key, "0" * 64) not in served.store
