"""Evidence in the model's parameters: isolated between runs, recorded, and rebuilt or moved to the prompt if lost."""

import asyncio
import json
from concurrent.futures import ThreadPoolExecutor

import pytest
from langchain_core.documents import Document
from langchain_core.retrievers import BaseRetriever
from langgraph.checkpoint.memory import InMemorySaver
from pydantic import Field

from langgraph_dynrag import Budgets, LocalChatModel, Trace, create_dynamic_rag
from langgraph_dynrag.evidence import Passage
from langgraph_dynrag.injection.parametric import ParametricInjector, WeightsPrompt
from langgraph_dynrag.prompts import Exemplar
from langgraph_dynrag.queries import LastSentence
from langgraph_dynrag.triggers import RIND
from llamaindex_prag.adapters.adapter import Adapter
from llamaindex_prag.parametric_model import ParametricModel
from llamaindex_prag.parametrize import Parametrizer
from llamaindex_prag.prompts import prompt_ids
from rag_backbone.errors import ConfigurationError
from rag_backbone.loading.causal_lm import CausalLM
from tests.langgraph_dynrag.injection.weights import QUESTION, TEXTS, UNTIDY, Fixed, drafts, graph, injections
from tests.langgraph_dynrag.scripted import ScriptedChatModel
from tests.llamaindex_prag.made import random_values, version_of
from tests.tiny import tiny_llama, tiny_tokenizer


def test_passages_act_through_adapters_and_do_not_lengthen_the_prompt(adapters, requests):
    result = graph(adapters, TEXTS[0], TEXTS[1], max_active=2).invoke({"question": QUESTION})
    decoded = [adapters.lm.tokenizer.decode(list(r.prompt)) for r in requests]
    assert not any("number" in text for text in decoded)
    assert {k.text for k in requests[0].adapters.keys} == {adapters.key(t).text for t in TEXTS[:2]}
    assert injections(result)[0]["in_weights"] == [s["id"] for s in result["sources"]]
    assert all(e["in_weights"] for e in drafts(result))
    lengths = set()
    for k in (1, 2, 3):
        requests.clear()
        graph(adapters, *TEXTS[:k], max_active=k).invoke({"question": QUESTION})
        lengths.add(len(requests[0].prompt))
    assert len(lengths) == 1


def test_the_graph_writes_what_the_engine_generates_with_the_same_adapters(adapters, requests):
    result = graph(adapters, TEXTS[2]).invoke({"question": QUESTION})
    first = requests[0]
    alone = adapters.lm.engine.generate(first)
    pieces = drafts(result)[0]["pieces"]
    assert alone.text.startswith("".join(pieces)) or "".join(pieces).startswith(alone.text)
    other = graph(adapters, TEXTS[3]).invoke({"question": QUESTION})
    assert other["answer"] != result["answer"]


def test_combined_injection_adds_the_text_and_weakens_the_adapters(adapters, requests):
    graph(adapters, TEXTS[0], injection="combined").invoke({"question": QUESTION})
    assert "number 0" in adapters.lm.tokenizer.decode(list(requests[0].prompt))
    assert requests[0].adapters.weights == (0.1,)


def test_new_evidence_causes_another_prefill_and_the_trace_shows_it(adapters):
    class Turning(BaseRetriever):
        calls: list[str] = Field(default_factory=list)

        def _get_relevant_documents(self, query, *, run_manager):
            self.calls.append(query)
            return [Document(TEXTS[len(self.calls) % 2], metadata={"source": "x"})]

    result = graph(adapters, retriever=Turning()).invoke({"question": QUESTION})
    first, second = drafts(result)[:2]
    assert first["in_weights"] != second["in_weights"]
    assert second["cached_tokens"] == 0  # a KV cache computed with other adapters cannot be reused
    assert second["forward_tokens"] >= second["prompt_tokens"]
    assert "into the weights: 1 passages" in str(Trace.from_state(result))


def test_a_cleaned_passage_is_looked_up_by_its_original_text(adapters, requests):
    result = graph(adapters, UNTIDY).invoke({"question": QUESTION})
    assert result["sources"][0]["text"] == "The mill was built by nobody."
    assert [k.text for k in requests[0].adapters.keys] == [adapters.key(UNTIDY).text]


@pytest.mark.parametrize("texts", [(), (TEXTS[0], TEXTS[1])])
def test_weights_prompt_equals_the_prompt_used_in_training(adapters, requests, texts):
    passages = [Passage(id=t, text=t, title="", source="", score=1.0, metadata={}) for t in texts]
    encoded = LocalChatModel.from_causal_lm(adapters.lm).encode(WeightsPrompt().messages(QUESTION, passages))
    assert list(encoded.ids) == prompt_ids(adapters.lm.tokenizer, QUESTION, texts)
    graph(adapters, TEXTS[0], prompt=WeightsPrompt()).invoke({"question": QUESTION})
    assert list(requests[0].prompt) == prompt_ids(adapters.lm.tokenizer, QUESTION)


def test_weights_prompt_accepts_no_exemplars():
    with pytest.raises(ConfigurationError, match="without exemplars"):
        WeightsPrompt(exemplars=(Exemplar("Who?", "Nobody."),))


def test_passages_without_adapter_or_beyond_max_active_are_put_in_the_prompt_with_the_reason(adapters, requests):
    injector = ParametricInjector(adapters, route="retrieval", missing="context", max_active=3, others="context")
    result = graph(adapters, "A road nobody knows.", *TEXTS[:4], k=5, injection=injector).invoke({"question": QUESTION})
    text = adapters.lm.tokenizer.decode(list(requests[0].prompt))
    assert "A road nobody knows." in text
    assert "number 3" in text
    assert "number 0" not in text
    reasons = injections(result)[0]["in_prompt_because"].values()
    assert list(reasons) == ["no adapter", "more than the 3 adapters that a call may use"]


def test_training_reports_its_document_progress_and_duration(adapters, caplog):
    built = graph(adapters, "A road was built by Ada in 1954.", missing="train")
    parts = list(built.stream({"question": QUESTION}, stream_mode=["custom", "values"]))
    told = [part for mode, part in parts if mode == "custom" and part["type"] == "training"]
    assert (told[0]["part"], told[-1]["part"], told[-1]["made"]) == (0.0, pytest.approx(1.0), 1)
    assert told[0]["documents"] == ["doc-0"]
    assert told[0]["left"] == told[0]["estimated"] > 0
    (warned,) = [r.message for r in caplog.records if r.levelname == "WARNING" and "waits" in r.message]
    assert "the adapter of doc-0 is trained: about" in warned
    event = next(e for e in parts[-1][1]["trace"] if e["type"] == "injection")
    assert event["training"]["documents"] == ["doc 0"]
    assert event["training"]["estimated"] == told[0]["estimated"]
    assert "trained first: doc 0 (" in str(Trace.from_state(parts[-1][1]))


@pytest.mark.parametrize("asynchronous", [False, True])
def test_evidence_is_placed_once_per_node_run(adapters, monkeypatch, asynchronous):
    placings, place = [], ParametricInjector.place
    monkeypatch.setattr(ParametricInjector, "place", lambda *args: placings.append(1) or place(*args))
    built, nodes = graph(adapters, TEXTS[0]), []

    async def streamed():
        return [update async for update in built.astream({"question": QUESTION}, stream_mode="updates")]

    updates = asyncio.run(streamed()) if asynchronous else built.stream({"question": QUESTION}, stream_mode="updates")
    for update in updates:
        nodes += update
    assert nodes.count("generate") > 1
    assert len(placings) == nodes.count("generate") + nodes.count("resume")


def test_missing_adapters_are_trained_or_translated(adapters, requests):
    trained = graph(adapters, "A road was built by Ada in 1954.", missing="train").invoke({"question": QUESTION})
    assert injections(trained)[0]["trained"] == 1
    assert requests[-1].adapters.keys[0].recipe == adapters.recipe.key
    translated = graph(adapters, "A tower was built by Bo.", missing="translate").invoke({"question": QUESTION})
    assert injections(translated)[0]["translated"] == 1
    assert requests[-1].adapters.keys[0].recipe == adapters.translator_key


def test_a_passage_too_long_to_learn_is_put_in_the_prompt(adapters, requests):
    long = "The bridge was built. " * 400
    result = graph(adapters, long, missing="train", context_tokens=64).invoke({"question": QUESTION})
    (reason,) = injections(result)[0]["in_prompt_because"].values()
    assert "Split it into passages" in reason
    assert requests[0].adapters is None


def test_a_passage_that_cannot_be_learnt_is_tried_once_and_does_not_affect_the_others(adapters, monkeypatch):
    tried = []
    parametrize = Parametrizer.parametrize
    monkeypatch.setattr(
        Parametrizer, "parametrize", lambda self, ps, **o: tried.append(len(ps)) or parametrize(self, ps, **o)
    )
    texts = ("The bridge was built. " * 400, "A road was built by Ada.")
    built = graph(adapters, *texts, missing="train", max_active=2)
    result = built.invoke({"question": QUESTION})
    assert (injections(result)[0]["trained"], len(injections(result)[0]["in_weights"])) == (1, 1)
    assert len(injections(result)) > 1
    assert tried == [2]


def test_failures_are_remembered_by_text_up_to_a_limit(adapters, monkeypatch):
    monkeypatch.setattr("llamaindex_prag.placement.maker._REMEMBERED", 2)
    tried = []
    parametrize = Parametrizer.parametrize
    monkeypatch.setattr(
        Parametrizer, "parametrize", lambda self, ps, **o: tried.append(len(ps)) or parametrize(self, ps, **o)
    )
    injector = ParametricInjector(adapters, route="retrieval", missing="train")

    def prepare(text):
        tried.clear()
        done = injector.prepare([Passage(id="doc", text=text, title="", source="", score=None, metadata={})])
        return list(done["failed"]), done["trained"], len(tried)

    hopeless = [f"The bridge {i} was built. " * 400 for i in range(3)]
    assert [prepare(text) for text in (hopeless[0], hopeless[0])] == [(["doc"], 0, 1), (["doc"], 0, 0)]
    assert prepare("A road was built by Ada.") == ([], 1, 1)  # the same document, changed
    assert [prepare(text)[2] for text in (*hopeless[1:], *hopeless)] == [1, 1, 1, 1, 1]  # only two are remembered
    assert prepare(hopeless[2])[2] == 0


def test_a_resumed_run_does_not_use_the_adapter_of_a_removed_document(adapters, store):
    config = {"configurable": {"thread_id": "t"}}
    built = graph(adapters, TEXTS[5], checkpointer=InMemorySaver(), interrupt_after=["resume"])
    built.invoke({"question": QUESTION}, config)
    store.remove(adapters.key(TEXTS[5]).text)
    event = drafts(built.invoke(None, config))[0]
    assert (event["in_weights"], list(event["in_prompt_because"].values())) == ([], ["no adapter"])


def test_a_resumed_run_rebuilds_a_missing_adapter(adapters, store):
    config = {"configurable": {"thread_id": "t"}}
    built = graph(adapters, TEXTS[5], checkpointer=InMemorySaver(), interrupt_after=["resume"], missing="translate")
    built.invoke({"question": QUESTION}, config)
    store.remove(adapters.key(TEXTS[5]).text)
    (event, *_) = drafts(built.invoke(None, config))
    assert len(event["in_weights"]) == 1


def test_checkpoints_contain_plain_data(adapters):
    config = {"configurable": {"thread_id": "t"}}
    built = graph(adapters, TEXTS[0], checkpointer=InMemorySaver())
    built.invoke({"question": QUESTION}, config)
    for snapshot in built.get_state_history(config):
        values = {k: v for k, v in snapshot.values.items() if k != "messages"}
        assert json.loads(json.dumps(values)) == values


def test_eight_concurrent_runs_do_not_mix_their_evidence(adapters):
    graphs = [graph(adapters, text, budgets=Budgets(tokens=16)) for text in TEXTS]
    alone = [g.invoke({"question": QUESTION})["answer"] for g in graphs]
    assert len(set(alone)) > 4
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda g: g.invoke({"question": QUESTION})["answer"], graphs))
    assert together == alone

    async def asynchronous():
        found = await asyncio.gather(*(g.ainvoke({"question": QUESTION}) for g in graphs))
        return [r["answer"] for r in found]

    assert asyncio.run(asynchronous()) == alone


def test_attention_is_recomputed_with_the_adapters_after_resuming(adapters, monkeypatch):
    config = {"configurable": {"thread_id": "t"}}
    options = {"preset": "dragin", "trigger": RIND(0.0), "query": LastSentence()}
    whole = graph(adapters, TEXTS[0], **options).invoke({"question": QUESTION})
    built = graph(adapters, TEXTS[0], checkpointer=InMemorySaver(), interrupt_after=["generate"], **options)
    result = built.invoke({"question": QUESTION}, config)
    while built.get_state(config).next:
        result = built.invoke(None, config)  # attention is never saved
    assert result["answer"] == whole["answer"]


def test_adapters_that_cause_too_much_forgetting_are_weakened_or_replaced_by_the_prompt(adapters, requests):
    free = graph(adapters, TEXTS[0]).invoke({"question": QUESTION})
    assert injections(free)[0]["forgetting"] is None
    guarded = graph(adapters, TEXTS[0], forgetting=0.02).invoke({"question": QUESTION})
    event = injections(guarded)[0]
    assert event["forgetting"] <= 0.02
    assert 0.1 <= event["strength"] < 1
    assert requests[-1].adapters.weights == (event["strength"],)
    assert "forgets 0." in str(Trace.from_state(guarded))
    requests.clear()
    refused = graph(adapters, TEXTS[0], forgetting=1e-9).invoke({"question": QUESTION})
    (reason,) = injections(refused)[0]["in_prompt_because"].values()
    assert "nats of other things" in reason
    assert requests[-1].adapters is None
    assert "number 0" in adapters.lm.tokenizer.decode(list(requests[-1].prompt))


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"injection": "weights"}, "injection is 'weights'"),
        ({"injection": "context", "adapters": "some"}, "uses no adapters. Leave the argument out"),
        ({"missing": "guess"}, "missing is 'guess'"),
    ],
)
def test_invalid_options_are_refused_with_the_line_to_write(adapters, options, reason):
    with pytest.raises(ConfigurationError, match=reason):
        graph(adapters, TEXTS[0], **options)


def test_models_without_matching_local_adapters_are_refused(adapters):
    retriever = Fixed(documents=[Document(TEXTS[0])])
    with pytest.raises(ConfigurationError, match="are not here. Use LocalChatModel"):
        create_dynamic_rag(ScriptedChatModel(replies=[]), retriever, injection="parametric", preset="single")
    chat = LocalChatModel.from_causal_lm(adapters.lm)
    with pytest.raises(ConfigurationError, match=r"ParametricModel.of\(lm, LMDBStore"):
        create_dynamic_rag(chat, retriever, injection="parametric", preset="single")
    other = LocalChatModel.from_causal_lm(CausalLM(tiny_llama(), tiny_tokenizer(), name="other"))
    with pytest.raises(ConfigurationError, match=r"from_causal_lm\(adapters.lm\)"):
        create_dynamic_rag(other, retriever, injection="parametric", adapters=adapters, preset="single")


def test_translating_needs_a_translator(lm, store):
    plain = ParametricModel(lm, store, recipe="prag")
    with pytest.raises(ConfigurationError, match="translator="):
        ParametricInjector(plain, route="retrieval", missing="translate")


def test_contradicting_passages_are_reported_and_handled_by_the_policy(adapters, store, requests):
    first = random_values(adapters.layout, 20, 0.5)
    for i, strong_values in enumerate((first, version_of(adapters.layout, first, 21))):
        store.put(adapters.key(TEXTS[i]), Adapter(adapters.layout, strong_values, 2.0), {}, owners=[f"doc-{i}"])
    dates = ("2024-01-01", "2020-01-01")
    found = [Document(text, metadata={"source": f"doc-{i}", "date": dates[i]}) for i, text in enumerate(TEXTS[:2])]
    ids = [p["id"] for p in graph(adapters, retriever=Fixed(documents=found)).invoke({"question": QUESTION})["sources"]]

    def event_of(policy):
        requests.clear()
        result = graph(adapters, retriever=Fixed(documents=found), conflicts=policy).invoke({"question": QUESTION})
        assert "contradiction, " in str(Trace.from_state(result))
        return injections(result)[0]

    mean = event_of("mean")
    assert mean["in_weights"] == ids
    assert mean["conflicts"]["pairs"][0]["nats"] > 1
    latest = event_of("latest")
    assert (latest["in_weights"], list(latest["left_out"])) == (ids[:1], ids[1:])
    assert requests[-1].adapters.keys == (adapters.key(TEXTS[0]),)
    shown = event_of("context")
    assert (shown["in_weights"], list(shown["in_prompt_because"])) == ([], ids)
    assert "number 1" in adapters.lm.tokenizer.decode(list(requests[-1].prompt))

    def noticed(**bounds):
        injector = ParametricInjector(adapters, route="retrieval", missing="context", conflicts="latest", **bounds)
        made = graph(adapters, retriever=Fixed(documents=found), injection=injector)
        return injections(made.invoke({"question": QUESTION}))[0]["left_out"]

    assert list(noticed()) == ids[1:]
    assert not noticed(conflict_bound=1e6)
    assert not noticed(conflict_overlap=1.0)


def test_a_configured_injector_replaces_the_injection_options_of_the_graph(adapters):
    injector = ParametricInjector(adapters, route="retrieval", missing="context", strength=0.25)
    result = graph(adapters, TEXTS[0], injection=injector).invoke({"question": QUESTION})
    assert injections(result)[0]["strength"] == 0.25
    with pytest.raises(ConfigurationError, match="adapters: the injector has its own"):
        graph(adapters, TEXTS[0], injection=injector, adapters=adapters)
    with pytest.raises(ConfigurationError, match="injection is 3; an Injector, or one of context, parametric"):
        graph(adapters, TEXTS[0], injection=3)
    other = LocalChatModel.from_causal_lm(CausalLM(tiny_llama(), tiny_tokenizer(), name="other"))
    with pytest.raises(ConfigurationError, match=r"from_causal_lm\(adapters.lm\)"):
        create_dynamic_rag(other, Fixed(documents=[Document(TEXTS[0])]), injection=injector, preset="single")
