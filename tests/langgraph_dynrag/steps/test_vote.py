"""The vote of the passages on a closed set of answers, and Self-RAG's short form."""

import json

import pytest
from langchain_core.documents import Document

from langgraph_dynrag import (
    AnswerPrompt,
    Budgets,
    LocalChatModel,
    SegmentSelection,
    Trace,
    create_dynamic_rag,
    create_nodes,
)
from langgraph_dynrag.reflection.beam import Beam, SegmentCandidate
from langgraph_dynrag.reflection.scores import Critique
from langgraph_dynrag.reflection.vote import answer_given
from langgraph_dynrag.trace.html import page
from langgraph_dynrag.triggers import Reflection
from rag_backbone.loading.causal_lm import CausalLM
from tests.langgraph_dynrag.reflective import (
    BRIDGE,
    BUILT,
    FIRST,
    GREETING,
    GUIDE,
    HELLO,
    RIVER,
    SECOND,
    WRONG,
    reflective_chat,
    segment,
)
from tests.langgraph_dynrag.running import events
from tests.langgraph_dynrag.scripted import DOCUMENTS, WatchedRetriever
from tests.tiny import tiny_llama, tiny_tokenizer

YES_NO = ("yes", "no")


def voting(texts_and_scores, chat, prompt=None, critiques=(), **selection):
    """Return what `monitor` does with continuations of these texts and scores, each from a different passage."""
    nodes = create_nodes(
        chat,
        WatchedRetriever(),
        preset="self_rag",
        prompt=prompt,
        selection=SegmentSelection(form="short", **{"answers": YES_NO, **selection}),
    )
    parts = [segment(text, score, ended=True) for text, score in texts_and_scores]
    if critiques:
        parts = [segment(t, s, ended=True, support=c) for (t, s), c in zip(texts_and_scores, critiques, strict=True)]
    state = nodes.begin({"question": "Is it old?"})
    state["trace"] = state["trace"].value
    state |= {
        "beam": Beam(candidates=tuple(SegmentCandidate(0, p) for p in parts)).to_state(),
        "sources": [
            {"number": i + 1, "id": p.passage["id"], "title": p.draft.text, "query": "q"} for i, p in enumerate(parts)
        ],
    }
    return nodes.monitor(state)


@pytest.fixture
def chat():
    return reflective_chat()


def test_the_voted_answer_is_returned_with_the_text_of_its_best_continuation(chat):
    # yes: 1.0 + 1.1 = 2.1, more than a single no of 2.0, which would be the best continuation.
    out = voting([("Yes", 1.0), ("No.", 2.0), ("Yes, it is.", 1.1)], chat)
    assert (out["stage"], out["answer"], out["short_answer"]) == ("done", "Yes, it is.", "yes")
    assert [(s["id"], s["number"]) for s in out["sources"]] == [("Yes, it is.", 1)]
    vote = events(out, "selection")[0]["vote"]
    assert vote["winner"] == "yes"
    assert [(s["answer"], s["passages"]) for s in vote["sums"]] == [("yes", ["Yes", "Yes, it is."]), ("no", ["No."])]
    assert not events(out, "budget")
    assert events(out, "answer")[0]["short_answer"] == "yes"
    trace = Trace.from_state(out)
    assert "votes: yes 2.10 (2), no 2.00 (1)" in str(trace)
    assert "votes: yes 2.10 (2)" in page(trace)
    assert json.loads(json.dumps(out["trace"])) == out["trace"]


def test_without_a_vote_the_best_continuation_is_the_answer(chat):
    out = voting([("Yes", 1.0), ("No.", 2.0), ("Yes, it is.", 1.1)], chat, answers=None)
    assert (out["answer"], out["short_answer"]) == ("No.", "No.")
    assert "vote" not in events(out, "selection")[0]
    assert not events(out, "budget")


def test_if_no_continuation_gives_an_answer_of_the_set_the_best_one_is_returned(chat):
    out = voting([("Perhaps.", 1.0), ("Who knows?", 2.0)], chat)
    assert (out["answer"], out["short_answer"]) == ("Who knows?", "Who knows?")
    vote = events(out, "selection")[0]["vote"]
    assert vote == {"winner": None, "sums": [], "blank": ["Perhaps.", "Who knows?"]}
    assert "votes: no answer of the set (2)" in str(Trace.from_state(out))


def test_written_answers_are_voted_on_as_they_are(chat):
    out = voting([("Wray", 1.0), ("Pike", 1.8), ("wray.", 1.1)], chat, answers="written")
    assert (out["answer"], out["short_answer"]) == ("wray.", "Wray")


def test_the_vote_is_on_the_short_answer(chat):
    prompt = AnswerPrompt(instructions="Answer.")
    said = [("No wonder. So the answer is yes.", 1.0), ("No", 1.5), ("So the answer is Yes", 1.1)]
    out = voting(said, chat, prompt=prompt)
    assert out["short_answer"] == "yes"
    # The voted answer is not asked for again, although its text lacks the phrase.
    out = voting([("Yes", 1.0), ("No", 0.5)], chat, prompt=prompt)
    assert (out["stage"], out["answer"], out["short_answer"]) == ("done", "Yes", "yes")


def test_dropped_continuations_have_no_vote(chat):
    none = {"full": 0.1, "partial": 0.1, "none": 0.8}
    full = {"full": 0.8, "partial": 0.1, "none": 0.1}
    said = [("Yes", 1.0), ("No", 1.5), ("yes", 1.1)]
    kept = voting(said, chat, critiques=[none, full, none])
    dropped = voting(said, chat, critiques=[none, full, none], unsupported="drop")
    assert (kept["short_answer"], dropped["short_answer"]) == ("yes", "no")
    assert Critique(support=none).unsupported


def test_the_votes_are_the_scores_of_the_continuations(chat):
    retriever = WatchedRetriever(give=[RIVER, GUIDE, BUILT])
    graph = create_dynamic_rag(
        chat,
        retriever,
        preset="self_rag",
        selection=SegmentSelection(form="short", answers=("Pike did it", "Wray built it")),
    )
    out = graph.invoke({"question": BRIDGE})
    scores = {c["passage"]["id"]: c["total"] for c in events(out, "continuations")[0]["candidates"]}
    texts = [c["text"] for c in events(out, "continuations")[0]["candidates"]]
    assert texts == [WRONG, FIRST, FIRST]
    (selection,) = events(out, "selection")
    sums = {s["answer"]: s["score"] for s in selection["vote"]["sums"]}
    assert sums == pytest.approx({"Wray built it": scores["guide"] + scores["built"], "Pike did it": scores["river"]})
    assert (out["answer"], out["short_answer"]) == (FIRST, "Wray built it")
    assert [s["id"] for s in out["sources"]] == ["built"]
    assert retriever.queries == [BRIDGE]


async def test_voting_works_asynchronously_and_without_retrieval(chat):
    graph = create_dynamic_rag(
        chat,
        WatchedRetriever(give=[RIVER]),
        preset="self_rag",
        selection=SegmentSelection(form="short", answers=["Hello", "Goodbye"]),
    )
    out = await graph.ainvoke({"question": GREETING})
    assert (out["answer"], out["short_answer"]) == (HELLO, "Hello")
    assert events(out, "selection")[0]["vote"]["sums"][0]["passages"] == [None]


def test_the_short_form_returns_the_best_of_one_continuation_per_passage(chat):
    retriever = WatchedRetriever(give=[RIVER, GUIDE, BUILT])
    short = create_dynamic_rag(chat, retriever, preset="self_rag", selection=SegmentSelection(form="short"))
    out = short.invoke({"question": BRIDGE})
    assert out["answer"] == FIRST
    (event,) = events(out, "continuations")
    best = max(event["candidates"], key=lambda c: c["total"])
    assert [s["id"] for s in out["sources"]] == [best["passage"]["id"]]
    assert not events(out, "budget")
    assert SECOND not in out["answer"]
    # The default is the long form.
    assert SegmentSelection() == SegmentSelection(form="long", answers=None)
    assert (SegmentSelection().width, SegmentSelection().segments) == (2, 7)
    assert (SegmentSelection(form="short").width, SegmentSelection(form="short").segments) == (1, 1)


def test_a_model_that_is_asked_questions_writes_its_short_answer_to_the_end():
    chat = LocalChatModel.from_causal_lm(CausalLM(tiny_llama(), tiny_tokenizer(), name="tiny"))
    found = {}
    for form in ("short", "long"):
        graph = create_dynamic_rag(
            chat,
            WatchedRetriever(give=DOCUMENTS[:2]),
            preset="self_rag",
            trigger=Reflection(0.0),
            lookahead=8 if form == "short" else 60,
            selection=SegmentSelection(form=form, depth=1),
            budgets=Budgets(tokens=60),
            prompt=AnswerPrompt(instructions="Answer.", answer_phrase=None, stop=()),
        )
        out = graph.invoke({"question": "Who built the bridge?"})
        (event,) = events(out, "continuations")
        assert event["path"] == "classification"
        found[form] = [(c["text"], c["tokens"]) for c in event["candidates"]]
    assert all(tokens == 60 for _, tokens in found["short"])
    assert all(a[0].startswith(b[0]) for a, b in zip(found["short"], found["long"], strict=True))
    assert any(b[1] < 60 for b in found["long"])


@pytest.mark.slow
def test_the_embedded_model_votes(embedded_lm):
    prompt = AnswerPrompt(instructions="Answer with yes or no alone.", answer_phrase=None)
    documents = [
        Document("The Cooper's Bridge was built by the mason Aldous Wray.", id="bridge"),
        Document("Aldous Wray, a mason, built the Cooper's Bridge.", id="wray"),
        Document("The river Tamsin crosses Brannoch.", id="tamsin"),
    ]
    graph = create_dynamic_rag(
        LocalChatModel.from_causal_lm(embedded_lm),
        WatchedRetriever(give=documents),
        preset="self_rag",
        prompt=prompt,
        trigger=Reflection(mode="always"),
        selection=SegmentSelection(form="short", answers=YES_NO),
        k=3,
        budgets=Budgets(tokens=24),
        lookahead=24,
    )
    out = graph.invoke({"question": "Was the Cooper's Bridge built by Aldous Wray?"})
    vote = events(out, "selection")[0]["vote"]
    assert sum(len(s["passages"]) for s in vote["sums"]) + len(vote["blank"]) == 3
    # It does not matter which of the two the 135M model says, but it says one of them, and the sums decide.
    sums = dict.fromkeys(YES_NO, 0.0)
    for c in events(out, "continuations")[0]["candidates"]:
        if (given_ := answer_given(c["text"], YES_NO)) is not None:
            sums[given_] += c["total"]
    assert out["short_answer"] == vote["winner"] == max(sums, key=sums.get)
    assert vote["sums"][0]["score"] == pytest.approx(max(sums.values()))
