"""Adapters in a real llama.cpp server: the arithmetic of the local engine, and never another request's adapters."""

import copy
import functools
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from llamaindex_prag.adapters.adapter import Adapter
from llamaindex_prag.parametric_model import ParametricModel
from llamaindex_prag.prompts import prompt_ids
from llamaindex_prag.serving.llamacpp_files import export_adapters
from llamaindex_prag.serving.llamacpp_model import LlamaCppModel
from llamaindex_prag.store.lmdb_store import LMDBStore
from rag_backbone.engine.requests import Request
from rag_backbone.engine.sampling import Sampling
from rag_backbone.engine.signals import Signals
from rag_backbone.errors import AdapterError, ConfigurationError, ServerError, ServerUnavailableError
from rag_backbone.loading.causal_lm import CausalLM
from rag_backbone.loading.llamacpp_server import LlamaCppServer
from tests.llamacpp.conftest import TEXTS
from tests.llamacpp.tiny_gguf import write_gguf
from tests.llamaindex_prag.made import random_values
from tests.tiny import tiny_llama, tiny_tokenizer

pytestmark = pytest.mark.llamacpp
QUESTION = "Who built the bridge?"
ROUNDING = 0.1
"""Difference of two log-probabilities that llama.cpp's keys and values in float16 may make in a model this steep."""


@functools.cache
def bytes_alone():
    """Return a bias against tokens that are no text alone, most of whose log-probabilities llama.cpp does not send."""
    tokenizer = tiny_tokenizer()
    return {i: -1e4 for i in range(len(tokenizer)) if "\ufffd" in tokenizer.decode([i])}


def request_of(model, numbers, *, tokens=12, **options):
    selection = model.select([model.key(TEXTS[i]) for i in numbers], **options)
    sampling, wanted = Sampling(logit_bias=bytes_alone()), Signals(top_logprobs=60)
    return Request(
        prompt_ids(model.lm.tokenizer, QUESTION), tokens, adapters=selection, sampling=sampling, signals=wanted
    )


def assert_alike(here, there):
    """Assert that two generations are equal up to a tie."""
    for ours, theirs in zip(here.steps, there.steps, strict=False):
        if ours.token_id != theirs.token_id:
            scores = dict(ours.top_logprobs)
            assert scores[ours.token_id] - scores[theirs.token_id] < ROUNDING
            return
        assert ours.logprob == pytest.approx(theirs.logprob, abs=ROUNDING)
    assert here.text == there.text
    assert here.finish_reason == there.finish_reason


@pytest.mark.parametrize(
    ("numbers", "options"),
    [
        ((), {}),
        ((0,), {}),
        ((2, 1), {}),
        ((0, 1, 2), {"merge": "sum", "strength": 0.5}),
        ((0, 3), {"merge": "score", "scores": [3.0, 1.0]}),
    ],
)
def test_the_server_generates_what_the_local_engine_generates(local, served, numbers, options):
    here = local.lm.engine.generate(request_of(local, numbers, **options))
    there = served.lm.engine.generate(request_of(served, numbers, **options))
    assert_alike(here, there)
    ours, theirs = here.steps[0].top_logprobs, there.steps[0].top_logprobs
    assert len(ours) == len(theirs) == 60
    assert ours[0] == pytest.approx(theirs[0], abs=ROUNDING)


def test_no_request_reads_a_prompt_cached_under_another_requests_adapters(local, served):
    wanted = [(), (0,), (), (1,), (0,), (0, 1), (), (2,), (), (2,), (0, 1)]
    for numbers in wanted:  # the same prompt each time, in a server with two slots
        assert_alike(
            local.lm.engine.generate(request_of(local, numbers)),
            served.lm.engine.generate(request_of(served, numbers)),
        )


def test_concurrent_requests_have_their_own_adapters_while_others_are_loaded(local, served):
    wanted = [(i % 5,) for i in range(10)] + [(), (1, 2)]
    with ThreadPoolExecutor(6) as pool:
        there = list(pool.map(lambda n: served.lm.engine.generate(request_of(served, n)), wanted))
    for numbers, found in zip(wanted, there, strict=True):
        assert_alike(local.lm.engine.generate(request_of(local, numbers)), found)


@pytest.mark.parametrize("store", ["alora"], indirect=True)
def test_adapters_that_act_from_the_answer_on_become_activated_adapters(lm, server, store, tmp_path):
    local = ParametricModel.of(lm, store, recipe="alora", max_adapters=3)
    served = LlamaCppModel(server, store, lm=lm, recipe="alora", max_adapters=3, folder=tmp_path / "files")
    for numbers in [(0,), (), (1,), (0,)]:
        here = local.lm.engine.generate(request_of(local, numbers))
        assert_alike(here, served.lm.engine.generate(request_of(served, numbers)))
    with pytest.raises(AdapterError, match="one activated adapter per request.*'alora'"):
        request_of(served, (0, 1))
    with pytest.raises(AdapterError, match="act from the last token of the prompt on"):
        served.lm.engine.generate(Request([5, 6, 7], 2, adapters=served.select([served.key(TEXTS[0])])))
    with pytest.raises(ConfigurationError, match="a graph that uses a llama.cpp server applies adapters to every"):
        served.runnable(served.select([served.key(TEXTS[0])]))


def test_a_scale_for_each_adapter_cannot_express_orthogonal_updates(served):
    with pytest.raises(ConfigurationError, match="merge='orthogonal' changes the adapters' values"):
        request_of(served, (0, 1), merge="orthogonal")
    with pytest.raises(ConfigurationError, match="ensemble='mixture'"):
        served.ensemble([served.key(TEXTS[0])])


# ------------------------------------------------------------------------------------------------------------- loading


def test_a_server_elsewhere_has_the_adapters_it_was_started_with(lm, gguf_file, store, local, tmp_path):
    keys = [local.key(text) for text in TEXTS]
    files = export_adapters(store, tmp_path / "out", base=gguf_file, recipe="prag", keys=keys[:2])
    with LlamaCppServer(gguf_file, adapters=files, context_window=512, threads=1) as running:
        served = LlamaCppModel(running.base_url, store, lm=lm, recipe="prag")
        for numbers in [(0,), (0, 1), ()]:
            found = served.lm.engine.generate(request_of(served, numbers))
            assert_alike(local.lm.engine.generate(request_of(local, numbers)), found)
        lacking = f"text {keys[2].text[:12]} .* is not loaded in the server.*loaded: {min(f.name for f in files)}"
        with pytest.raises(AdapterError, match=lacking):
            served.lm.engine.generate(request_of(served, (2,)))
        running.load(files[::-1])  # the server numbers its adapters in another order now
        found = served.lm.engine.generate(request_of(served, (0,)))
        assert_alike(local.lm.engine.generate(request_of(local, (0,))), found)


def test_a_server_in_this_process_keeps_the_adapters_used_last(server, lm, store, local, tmp_path):
    served = LlamaCppModel(server, store, lm=lm, recipe="prag", max_adapters=3, folder=tmp_path / "files", keep=2)
    for numbers in [(0,), (1,), (0,), (2,)]:
        found = served.lm.engine.generate(request_of(served, numbers, tokens=4))
        assert_alike(local.lm.engine.generate(request_of(local, numbers, tokens=4)), found)
    assert len(server.adapters) == 2
    before = server.adapters
    served.lm.engine.generate(request_of(served, (0, 2), tokens=2))
    assert server.adapters == before


def test_a_replaced_adapter_is_loaded_under_another_name(served, local, store):
    first = served.lm.engine.generate(request_of(served, (0,)))
    store.put(local.key(TEXTS[0]), Adapter(local.layout, random_values(local.layout, 99, 0.1), 2.0), {})
    there = served.lm.engine.generate(request_of(served, (0,)))
    assert_alike(local.lm.engine.generate(request_of(local, (0,))), there)
    assert there.token_ids != first.token_ids


def test_the_file_of_another_model_of_the_same_shape_is_refused(lm, store, tmp_path):
    stranger = copy.deepcopy(lm.model)
    with torch.no_grad():
        stranger.model.norm.weight *= 1.5
    file = write_gguf(stranger, lm.tokenizer, tmp_path / "stranger.gguf")
    with (
        LlamaCppServer(file, context_window=64, threads=1) as running,
        pytest.raises(ConfigurationError, match="is the file of another model than tiny.*their output_norm differ"),
    ):
        LlamaCppModel(running, store, lm=lm, recipe="prag")


def test_a_file_of_another_shape_is_refused(local, store, tmp_path):
    narrow = CausalLM(tiny_llama(intermediate_size=64), tiny_tokenizer(), name="narrow")
    other = write_gguf(narrow.model, narrow.tokenizer, tmp_path / "narrow.gguf")
    with pytest.raises(AdapterError, match=r"of shape \(48, 32\), but .*narrow.gguf has one of shape \(64, 32\)"):
        export_adapters(store, tmp_path / "out", base=other, recipe="prag")


# ------------------------------------------------------------------------------------------------------- the interface


def test_characters_of_several_tokens_keep_their_tokens(served, local):
    banned = dict.fromkeys(range(3), -100.0)  # no end
    for seed in range(4):
        sampling = Sampling(temperature=1.5, seed=seed, logit_bias=banned)
        request = Request(prompt_ids(served.lm.tokenizer, QUESTION), 48, sampling=sampling)
        found = served.lm.engine.generate(request)
        decoded = served.lm.tokenizer.decode(found.token_ids)
        if "�" not in decoded + found.text:
            assert decoded == found.text


def test_stop_strings_end_an_answer_as_in_the_local_engine(served, local):
    ids = prompt_ids(served.lm.tokenizer, QUESTION)
    whole = local.lm.engine.generate(Request(ids, 24)).text
    stop = (whole[5:7],)
    here = local.lm.engine.generate(Request(ids, 24, stop=stop))
    there = served.lm.engine.generate(Request(ids, 24, stop=stop))
    assert (there.text, there.finish_reason, there.stop_string) == (here.text, "stop", stop[0])


def test_a_closed_stream_ends_the_generation(served):
    with served.lm.engine.stream(request_of(served, ())) as stream:
        next(stream)
    assert stream.generation().finish_reason == "cancelled"


def test_another_server_or_none_is_named(store, tmp_path):
    with pytest.raises(ServerUnavailableError, match="the server at http://127.0.0.1:9/v1 could not answer"):
        LlamaCppModel("http://127.0.0.1:9/v1", store, timeout=2)


def test_a_closed_server_is_named_and_not_started_again(server, served):
    server.close()
    for numbers in [(0,), ()]:
        with pytest.raises(ServerError, match="tiny.gguf was closed; create another LlamaCppServer"):
            served.lm.engine.generate(request_of(served, numbers))
    assert "closed" in repr(server)


def test_a_request_waits_for_a_server_that_is_being_started_again(lm, gguf_file, store, local):
    options = {"context_window": 512, "threads": 1}
    with LlamaCppServer(gguf_file, **options) as first:
        served = LlamaCppModel(first.base_url, store, lm=lm, recipe="prag")
    port = int(first.base_url.removesuffix("/v1").rpartition(":")[2])
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(served.lm.engine.generate, request_of(served, ()))
        time.sleep(3)  # longer than the client tries by itself
        with LlamaCppServer(gguf_file, port=port, **options):
            assert_alike(local.lm.engine.generate(request_of(local, ())), asked.result())


def test_a_prompt_beyond_the_context_window_is_refused_by_the_server(served):
    with pytest.raises(ServerError, match="exceeds the available context size"):
        served.lm.engine.generate(Request([5] * 600, 4))


def test_what_needs_the_weights_says_how_to_name_them(server, store):
    served = LlamaCppModel(server, store, recipe="prag")
    assert repr(served.lm.engine).startswith("LlamaCppEngine(")
    with pytest.raises(ConfigurationError, match=r"write LlamaCppModel\(\.\.\., lm=\.\.\.\)"):
        _ = served.local


def test_a_store_keeps_its_model(lm, server, tmp_path):
    with LMDBStore(tmp_path / "other", model="f" * 64) as other, pytest.raises(ConfigurationError, match="the store"):
        LlamaCppModel(server, other, lm=lm, recipe="prag")
