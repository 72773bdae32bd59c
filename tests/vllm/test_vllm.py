"""Tests with a real vLLM server: equal arithmetic, and recovery after it crashes or unloads adapters."""

import json
import os
import re
import statistics
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from langchain_core.documents import Document
from langchain_openai import ChatOpenAI
from langgraph.checkpoint.memory import InMemorySaver

from langgraph_dynrag import ServerPolicy, Trace, create_dynamic_rag
from langgraph_dynrag.injection.parametric import ParametricInjector, WeightsPrompt
from langgraph_dynrag.retrieval import BM25Retriever
from langgraph_dynrag.triggers import Entropy, EverySentence, Never, TokenProbability
from llamaindex_prag.llama_index import ParametricLLM, ParametricNodePostprocessor
from llamaindex_prag.prompts import prompt_ids
from llamaindex_prag.serving.served_model import ServedModel
from rag_backbone.engine.requests import Request
from rag_backbone.errors import ConfigurationError, ServerError, ServerUnavailableError
from rag_backbone.text.units import sentences
from tests.vllm.agreement import NEAR, compared, judged
from tests.vllm.conftest import RECIPE, ROOT, SECRET

pytestmark = pytest.mark.vllm
QUESTION = {"question": "Who commanded the ferry Patient Anna?"}
TOKENS = 32


def selections(local, passages, count):
    """Return `count` selections, cycling through none, one document, another one, a mean of two and a sum of three."""
    keys = [local.key(text) for text in passages.values()]
    made = [
        None,
        local.select(keys[:1]),
        local.select(keys[1:2]),
        local.select(keys[1:3]),
        local.select(keys[2:5], merge="sum"),
    ]
    return [made[i % len(made)] for i in range(count)]


def written(served, question, selection, tokens=TOKENS):
    ids = prompt_ids(served.lm.tokenizer, question)
    return served.lm.engine.generate(Request(ids, tokens, adapters=selection)).token_ids


def chat(server, **options):
    given = {"model": "base", "api_key": "none", "temperature": 0, "max_retries": 0, "timeout": 300, **options}
    return ChatOpenAI(base_url=server.url, **given)


@pytest.fixture(scope="session")
def retriever(passages):
    documents = [Document(text, metadata={"title": title, "source": title}) for title, text in passages.items()]
    return BM25Retriever.from_documents(documents, k=2)


def graph(server, retriever, **options):
    chosen = {"preset": "flare", "trigger": TokenProbability(0.3), **options}
    return create_dynamic_rag(chat(server), retriever, server=ServerPolicy(attempts=2), **chosen)


def drafts(result):
    return [e for e in result["trace"] if e["type"] == "draft"]


# ---------------------------------------------------------------------------------------------------- equal arithmetic


def test_the_server_writes_what_the_local_model_writes_except_for_ties(local, served, passages, questions, results):
    chosen = selections(local, passages, len(questions))
    assert len(questions) == 50
    with ThreadPoolExecutor(len(questions)) as pool:  # the server batches concurrent requests
        there = list(pool.map(lambda qs: written(served, *qs), zip(questions, chosen, strict=True)))
    prompts = [prompt_ids(local.lm.tokenizer, question) for question in questions]
    found = [judged(local, *one, TOKENS) for one in zip(prompts, chosen, there, strict=True)]
    parted = [c.gap for c in found if c.gap is not None]
    results["agreement"] = {
        "prompts": len(found),
        "with_adapters": sum(1 for c in chosen if c is not None),
        "identical": sum(1 for c in found if c.gap is None),
        "mean_agreed_tokens": statistics.fmean(c.agreed for c in found),
        "mean_tokens": statistics.fmean(c.length for c in found),
        "largest_gap": max(parted, default=0.0),
    }
    assert max(parted, default=0.0) <= NEAR
    assert statistics.fmean(c.agreed for c in found) > 0.5 * statistics.fmean(c.length for c in found)


def test_adapters_change_the_output_of_the_server(local, served, passages, questions):
    selection = local.select([local.key(t) for t in passages.values()][:3], merge="sum", strength=2.0)
    ids = prompt_ids(local.lm.tokenizer, questions[0])
    plain = served.lm.engine.generate(Request(ids, TOKENS)).token_ids
    changed = served.lm.engine.generate(Request(ids, TOKENS, adapters=selection)).token_ids
    assert changed != plain
    after = served.lm.engine.generate(Request(ids, TOKENS)).token_ids
    assert judged(local, ids, None, after, TOKENS).gap in (None, pytest.approx(0, abs=NEAR))


# -------------------------------------------------------------------------------------------- loading and unloading


def test_an_adapter_that_the_server_unloaded_is_loaded_again(local, served, passages, questions):
    selection = local.select([local.key(t) for t in passages.values()][:2])
    assert compared(local, served, questions[1], selection).gap in (None, pytest.approx(0, abs=NEAR))
    with served.name_of(selection) as name:
        served.server.unload(name)
        assert name not in served.server.adapters()
    found = compared(local, served, questions[1], selection)
    assert found.gap in (None, pytest.approx(0, abs=NEAR))
    with served.name_of(selection) as name:
        assert name in served.server.adapters()


def test_the_server_survives_more_adapters_than_are_kept_loaded(server, lm, store, local, passages, folder):
    served = ServedModel(server.url, store, lm=lm, recipe=RECIPE, max_adapters=3, folder=folder / "few", keep=2)
    served._loaded._folders.grace = 0.0  # deleted as soon as they are unloaded
    for text in [*passages.values(), *list(passages.values())[:2]]:
        selection = local.select([local.key(text)], strength=0.9)
        assert compared(local, served, "Who?", selection, tokens=8).gap in (None, pytest.approx(0, abs=NEAR))
    assert len(served._loaded._folders.names()) == 2
    assert len([n for n in served.server.adapters().values() if "few" in n]) == 2


def test_two_processes_can_share_one_server(server, local, store, passages, questions, folder, results):
    texts = list(passages.values())
    told = {"store": str(folder / "store"), "url": server.url, "recipe": RECIPE, "tokens": 16}
    halves = [
        {**told, "texts": part, "questions": questions[:4], "folder": str(folder / "shared")}
        for part in (texts[:3], texts[1:4])  # two documents in common
    ]
    workers = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.vllm.worker", json.dumps(half)],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        for half in halves
    ]
    written = [worker.communicate(timeout=3000)[0] for worker in workers]
    assert [worker.returncode for worker in workers] == [0, 0]
    rows = [json.loads(line) for output in written for line in output.splitlines()]
    assert len(rows) == 2 * 3 * 4
    gaps = []
    for row in rows:
        ids = prompt_ids(local.lm.tokenizer, row["question"])
        gaps.append(judged(local, ids, local.select([local.key(row["text"])]), row["ids"], 16).gap)
    results["two_processes"] = {"answers": len(rows), "identical": gaps.count(None)}
    assert all(gap is None or gap <= NEAR for gap in gaps)


# ----------------------------------------------------------------------------------------------------------- the graph


@pytest.mark.parametrize("trigger", [TokenProbability(0.3), Entropy(2.0)])
def test_a_graph_continues_answers_in_the_server(server, retriever, trigger):
    built = graph(server, retriever, trigger=trigger)
    generator = built.nodes["generate"].bound.settings.generator
    assert generator.endpoint.way == "flags"
    assert generator.context_window == 2048
    result = built.invoke(QUESTION)
    assert result["answer"]
    assert "<|im_end|>" not in result["answer"]
    assert all(len(e["pieces"]) == len(e["logprobs"]) for e in drafts(result))
    assert not any(e.get("tokens_without_logprobs") for e in drafts(result))


def test_an_answer_drafted_in_pieces_is_joined_like_one_drafted_as_a_whole(server, retriever):
    options = {"preset": "flare", "initial_retrieval": False}
    whole = graph(server, retriever, trigger=Never(), **options).invoke(QUESTION)
    pieces = graph(server, retriever, trigger=TokenProbability(0.0), **options).invoke(QUESTION)
    assert len(drafts(whole)) < len(drafts(pieces))
    first = sentences(whole["answer"])[0]  # in bfloat16 another prefill of the text may break later ties differently
    assert pieces["answer"].startswith(whole["answer"][: first.end].strip())
    assert not re.search(r"[a-z][.!?][A-Z]|  ", pieces["answer"])


def test_an_unknown_model_is_refused(server, retriever):
    with pytest.raises(ConfigurationError, match="has no model 'nobody'; it has base"):
        create_dynamic_rag(chat(server, model="nobody"), retriever, preset="flare")


def test_evidence_can_be_injected_into_the_model_of_the_server(server, served, retriever, passages):
    built = graph(
        server,
        retriever,
        preset="fixed_sentence",
        trigger=EverySentence(),
        injection=ParametricInjector(served, missing="context", route="retrieval", max_active=3),
        prompt=WeightsPrompt(),
        initial_retrieval=True,
    )
    result = built.invoke(QUESTION)
    events = [e for e in result["trace"] if e["type"] == "injection"]
    assert len(events[0]["in_weights"]) == len(result["sources"]) > 1
    assert f"into the weights: {len(result['sources'])} passages" in str(Trace.from_state(result))


def test_llama_index_answers_from_the_server(server, lm, store, passages, folder, local):
    from llama_index.core.schema import NodeWithScore, TextNode

    llm = ParametricLLM(
        base_url=server.url,
        lm=lm,
        store=store,
        recipe=RECIPE,
        max_adapters=3,
        max_new_tokens=16,
        server={"folder": str(folder / "exports")},
    )
    nodes = [NodeWithScore(node=TextNode(text=t), score=1.0) for t in list(passages.values())[:2]]
    post = ParametricNodePostprocessor(llm=llm, missing="error")
    marked = [n.node.get_content("llm") for n in post.postprocess_nodes(nodes, query_str="Who?")]
    prompt = "\n".join([*marked, "Who commanded the ferry Patient Anna?"])
    whole = llm.complete(prompt)
    assert whole.text
    assert "".join(r.delta for r in llm.stream_complete(prompt))


# ---------------------------------------------------------------------------------------------------------- the plugin


def test_the_plugin_merges_the_documents_that_a_request_names(server, plugin, lm, store, local, passages, questions):
    if not plugin:
        pytest.skip("DYNPRAG_VLLM_PYTHON is not set: the Python of the server's environment, needed for the plugin")
    served = ServedModel(server.url, store, lm=lm, recipe=RECIPE, max_adapters=3, loading="resolve", secret=SECRET)
    chosen = [s for s in selections(local, passages, 8) if s is not None]
    found = [compared(local, served, q, s, tokens=16) for q, s in zip(questions, chosen, strict=False)]
    assert all(c.gap is None or c.gap <= NEAR for c in found)
    forged = ServedModel(server.url, store, lm=lm, recipe=RECIPE, loading="resolve", secret="not the server's secret")
    with pytest.raises(ServerError, match="HTTP 404"):
        compared(local, forged, questions[0], chosen[0])


# ------------------------------------------------------------------------------------- crash; kills the server, so last


def test_a_run_resumes_after_the_server_is_killed_in_mid_answer_and_restarted(server, served, retriever, lm, local):
    built = graph(
        server,
        retriever,
        checkpointer=InMemorySaver(),
        injection=ParametricInjector(served, missing="context"),
        initial_retrieval=True,
        trigger=TokenProbability(0.0),
    )
    config = {"configurable": {"thread_id": "t"}}
    tokens = []
    with pytest.raises(ServerUnavailableError, match=server.url.removesuffix("/v1")):
        for event in built.stream(QUESTION, config, stream_mode="custom"):
            if event["type"] == "token":
                tokens.append(event["text"])
                if len(tokens) == 3:
                    threading.Thread(target=server.kill).start()
    assert tokens
    state = built.get_state(config)
    assert state.next == ("generate",)
    with pytest.raises(ServerUnavailableError):  # the model used by LlamaIndex raises the same error
        served.lm.engine.attempts = 1
        served.lm.engine.generate(Request([1, 2, 3], 4))
    server.start()
    result = built.invoke(None, config)  # adapters are loaded again as well
    assert result["answer"]
    assert len(Trace.from_state(result).retrievals) == 1
    again = local.select([local.key(retriever.invoke("ferry")[0].page_content)])
    assert compared(local, served, "Who?", again, tokens=8).gap in (None, pytest.approx(0, abs=NEAR))
