"""One continuation per passage, written in one batch of a local engine."""

from langchain_core.documents import Document

from langgraph_dynrag import SegmentSelection, create_dynamic_rag
from tests.langgraph_dynrag.reflective import BRIDGE, layout, reflective_chat, reflective_tokenizer
from tests.langgraph_dynrag.running import events
from tests.langgraph_dynrag.scripted import WatchedRetriever


def test_all_passages_of_a_step_form_one_batch_that_computes_the_question_once(chat, retriever, monkeypatch):
    engine = chat.lm.engine
    batches = []
    whole = engine.generate_batch
    monkeypatch.setattr(engine, "generate_batch", lambda requests: batches.append(requests) or whole(requests))
    out = create_dynamic_rag(chat, retriever, preset="self_rag").invoke({"question": BRIDGE})
    assert [len(b) for b in batches] == [3, 2]  # one of the two hypotheses has ended
    steps = [len(c["text"]) > 0 for e in events(out, "continuations") for c in e["candidates"]]
    assert all(steps)
    prompts = [list(request.prompt) for request in batches[0]]
    asked = len(reflective_tokenizer()(layout(BRIDGE) + "[Retrieval]<paragraph>").input_ids)
    first = events(out, "continuations")[0]
    fresh = sum(len(p) - asked for p in prompts)
    decoded = first["generated_tokens"]
    assert first["forward_tokens"] <= fresh + decoded + asked
    assert events(out, "judgement")[0]["forward_tokens"] == len(reflective_tokenizer()(layout(BRIDGE)).input_ids)


def test_the_same_seed_gives_the_same_samples(retriever):
    def answers(seed):
        warm = reflective_chat(temperature=3.0)
        graph = create_dynamic_rag(warm, retriever, preset="self_rag", seed=seed)
        return [c["text"] for e in events(graph.invoke({"question": BRIDGE}), "continuations") for c in e["candidates"]]

    assert answers(5) == answers(5)
    assert answers(5) != answers(6)


def test_a_passage_is_truncated_to_its_budget_and_left_out_if_it_cannot_fit(retriever):
    long = Document("The bridge was built by Aldous Wray. " * 40, id="long", metadata={"title": "Bridge"})
    graph = create_dynamic_rag(
        reflective_chat(),
        WatchedRetriever(give=[long]),
        preset="self_rag",
        context_tokens=64,
        selection=SegmentSelection(depth=1),
    )
    out = graph.invoke({"question": BRIDGE})
    assert events(out, "continuations")[0]["shortened_or_left_out"] == ["long"]
    assert out["answer"]
    tight = create_dynamic_rag(
        reflective_chat(),
        WatchedRetriever(give=[long]),
        preset="self_rag",
        context_tokens=16,
        selection=SegmentSelection(depth=1),
    )
    out = tight.invoke({"question": BRIDGE})
    assert events(out, "continuations")[0]["candidates"][0]["passage"] is None
    assert out["sources"] == []
