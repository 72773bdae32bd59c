"""The trace's page as a whole: its header, its record, and what it never contains."""

import re

import pytest
from langchain_core.documents import Document
from langgraph.checkpoint.memory import InMemorySaver

from langgraph_dynrag import AnswerPrompt, RetrievalPolicy, Trace, create_dynamic_rag
from langgraph_dynrag.nodes.retrieve import RetrievalError
from langgraph_dynrag.trace.html import page
from tests.langgraph_dynrag.generators.served import QUICK, chat
from tests.langgraph_dynrag.scripted import DOCUMENTS, ScriptedChatModel, WatchedRetriever, said
from tests.langgraph_dynrag.trace.conftest import QUESTION
from tests.langgraph_dynrag.trace.parsed import parsed
from tests.openai_server import serving

HOSTILE = "<script>alert(\"x\")</script> & 'quoted' </p></details><img src=x onerror=alert(1)>"
ARABIC, HEBREW = "الجسر القديم بناه يوسف الحلبي.", "הגשר הישן נבנה בידי אלדוס ריי."


def shown(trace):
    return parsed(page(trace))


def test_the_page_is_self_contained_and_the_same_in_a_notebook(result, tmp_path):
    trace = Trace.from_state(result)
    text = trace.save_html(tmp_path / "deep" / "trace.html").read_text("utf-8")
    assert trace._repr_html_() in text
    tree = parsed(text)
    assert not [e for e in tree.all() if e.tag in ("script", "link", "img", "iframe", "object", "form", "a")]
    assert not [name for e in tree.all() for name in e.attributes if name.startswith("on")]
    assert not re.search(r"https?:|url\(|@import", text)
    assert tree.one("html").attributes["lang"] == "en"
    assert tree.one("title").text == QUESTION
    assert [e.text for e in tree.all("h3")] == ["How the answer grew", "Time and cost", "Record"]


def test_the_header_tells_what_was_asked_and_answered_and_at_what_cost(result):
    header = shown(Trace.from_state(result)).one("header")
    assert header.one("h2").text == QUESTION
    assert header.one("p", "answer").text == "Aldous Wray"
    assert header.one("p", "whole").text == result["answer"]
    figures = {d.one("dt").text: d.one("dd").text for d in header.one("dl", "figures").all("div")}
    assert figures["Method"] == "flare (token probability, threshold 0.8)"
    assert figures["Searches"] == "2"
    assert figures["Tokens"].endswith("kept, 8 discarded")
    assert " s" in figures["Time"]
    assert figures["Ended"]


def test_a_long_answer_is_folded_so_that_the_figures_stay_in_sight():
    events = [{"type": "question", "question": QUESTION}, {"type": "answer"}]
    header = shown(Trace.from_state({"trace": events, "answer": "It is told. " * 200, "short_answer": "Yes"})).one(
        "header"
    )
    assert len(header.one("span", "lead").text) < 700
    assert len(header.one("details", "text").one("p").text) > 2000
    assert header.one("p", "answer").text == "Yes"


def test_the_record_holds_all_sources_and_events_and_is_folded(result):
    trace = Trace.from_state(result)
    tree = shown(trace)
    sources, events = tree.all("section")[-1].children[1:]
    assert "open" not in sources.attributes
    assert "open" not in events.attributes
    assert [li.attributes["value"] for li in sources.all("li")] == ["1", "2"]
    assert all(s["text"] in sources.text for s in trace.sources)
    assert len(events.all("li")) == len(trace.events)
    assert all(event["type"] in li.text for event, li in zip(trace.events, events.all("li"), strict=True))


def test_hostile_text_stays_text(tmp_path):
    document = Document(HOSTILE, id=HOSTILE, metadata={"title": HOSTILE, "source": HOSTILE})
    replies = [
        [(HOSTILE, 0.1), (".", 0.9), (" And", 0.9), (" so", 0.9)],
        [(HOSTILE, 0.9), (" So the answer is x.", 0.9)],
    ]
    retriever = WatchedRetriever(give=[document])
    graph = create_dynamic_rag(ScriptedChatModel(replies=replies), retriever, preset="flare", prompt=AnswerPrompt())
    trace = Trace.from_state(graph.invoke({"question": HOSTILE}))
    tree = parsed(trace.save_html(tmp_path / "trace.html").read_text("utf-8"))
    assert not {"script", "img"} & {e.tag for e in tree.all()}
    assert not [e for e in tree.all() if any("alert" in str(value) for value in e.attributes.values())]
    for part in (tree.one("h2"), tree.one("title"), tree.all("p", "query")[0], tree.one("ol", "sources")):
        assert 'alert("x")' in part.text


def test_text_has_the_direction_of_its_own_script():
    documents = [Document(text * 10, id=text, metadata={"title": text}) for text in (ARABIC, HEBREW)]
    replies = [said(f"{ARABIC} Then", بناه=0.1), said(f"{ARABIC} So"), said("So the answer is يوسف.")]
    graph = create_dynamic_rag(
        ScriptedChatModel(replies=replies), WatchedRetriever(give=documents), preset="flare", prompt=AnswerPrompt()
    )
    tree = shown(Trace.from_state(graph.invoke({"question": f"{ARABIC} \u202e?"})))
    directed = [e for e in tree.one("body").all() if e.attributes.get("dir") == "auto" or e.tag == "bdi"]
    for text in (ARABIC[:5], HEBREW[:5]):
        assert text in tree.text
        leaves = [e for e in tree.one("body").all() if any(isinstance(c, str) and text in c for c in e.children)]
        assert leaves
        assert all(any(e is d or e in d.all() for d in directed) for e in leaves)


def test_control_characters_and_lone_surrogates_of_an_old_record_can_be_saved(tmp_path):
    events = [{"type": "question", "question": "Who\x00\ud800\x1b[0m?"}, {"type": "answer", "answer": "\udfffA"}]
    text = (
        Trace.from_state({"trace": events, "answer": "\udfffA\x08"}).save_html(tmp_path / "t.html").read_text("utf-8")
    )
    assert not re.search("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]", text)
    assert "\ufffdA" in text


def test_the_page_itself_uses_common_characters_only(result):
    text = page(Trace.from_state(result))
    assert {c for c in text if ord(c) > 126} <= set("\u201c\u201d\u2212\u00a0")


# ---------------------------------------------------------------------- records that lack something


def fields_of(events):
    return sorted({(e["type"], name) for e in events for name in e})


def test_a_record_that_lacks_any_one_field_is_shown(result):
    lacking = fields_of(result["trace"])
    assert len(lacking) > 60
    for kind, name in lacking:
        for change in ({}, {name: None}):
            events = [
                {**{k: v for k, v in e.items() if k != name}, **change} if e["type"] == kind else e
                for e in result["trace"]
            ]
            trace = Trace.from_state({**result, "trace": events})
            tree = shown(trace)
            assert QUESTION in tree.text, (kind, name)
            assert str(trace)
            assert trace.to_dict()["counts"]["retrievals"] == (0 if (kind, name) == ("retrieval", "type") else 2)


def test_a_record_without_any_optional_information_is_shown():
    bare = [{"type": t} for t in ("question", "draft", "verdict", "query", "retrieval", "resume", "accepted", "budget")]
    tree = shown(Trace.from_state({"trace": [*bare, {}, {"type": "continuations"}, {"type": "new"}]}))
    assert "not recorded" in tree.one("dl", "figures").text
    assert "The run has no answer" in tree.one("header").text
    assert "new, which this version of dynprag does not know" in tree.text


def test_a_run_that_failed_half_way_says_so_and_shows_what_there_is():
    def give(query):
        return DOCUMENTS[:2] if "Pike" in query else ValueError("index lost")

    replies = [
        said("The bridge was built by Joan Pike. Then it was", Joan=0.1),
        said("The bridge was built by Aldous Wray. So it is"),
        said(" He was born in Hallin. Then it was", Hallin=0.2),
    ]
    graph = create_dynamic_rag(
        ScriptedChatModel(replies=replies),
        WatchedRetriever(give=give),
        preset="flare",
        initial_retrieval=False,
        prompt=AnswerPrompt(),
        checkpointer=InMemorySaver(),
        retrieval=RetrievalPolicy(on_error="raise"),
    )
    config = {"configurable": {"thread_id": "1"}}
    with pytest.raises(RetrievalError):
        graph.invoke({"question": QUESTION}, config)
    tree = shown(Trace.from_state(graph.get_state(config).values))
    header = tree.one("header")
    assert "The run has no answer: it was stopped, or it failed." in header.text
    assert "The bridge was built by Aldous Wray." in header.text
    assert "not finished; the record stops after monitor" in header.text
    assert [e.text for e in tree.all("h4")] == ["Search 1", "Search 2, not made"]
    assert "He was born in" in tree.all("details", "round")[1].all("p", "query")[0].text


def test_a_search_that_failed_is_shown_with_its_error():
    retriever = WatchedRetriever(give=ValueError("index <lost>"))
    graph = create_dynamic_rag(
        ScriptedChatModel(replies=[said("So the answer is Hallin.")]), retriever, preset="single", prompt=AnswerPrompt()
    )
    tree = shown(Trace.from_state(graph.invoke({"question": QUESTION})))
    assert "1 of 1 searches failed" in tree.one("header").one("p", "note").text
    assert "The search failed: ValueError: index <lost>" in tree.one("div", "search").text
    assert "nothing found" in tree.one("div", "search").text


def test_a_remote_model_without_signals_has_no_token_scores_which_is_said_once():
    with serving(
        "The bridge was built by Wray. He was born in Hallin. So the answer is Hallin.", logprobs=False
    ) as server:
        graph = create_dynamic_rag(
            chat(server), WatchedRetriever(), preset="fixed_sentence", prompt=AnswerPrompt(), server=QUICK
        )
        tree = shown(Trace.from_state(graph.invoke({"question": QUESTION})))
    assert not tree.all("div", "strip")
    assert tree.text.count("The model reported no scores for its tokens.") == 1
    assert "Written before the search" in tree.text


def test_the_page_of_a_long_run_is_folded_and_small(result):
    searches = 200
    first, *_ = (i for i, e in enumerate(result["trace"]) if e["type"] == "draft")
    last = max(i for i, e in enumerate(result["trace"]) if e["type"] == "accepted")
    again = next(i for i, e in enumerate(result["trace"]) if e["type"] == "accepted")
    events, sources = result["trace"][:first], []
    for i in range(searches):
        for event in result["trace"][first : again + 1]:
            found = []
            if event["type"] == "retrieval":
                text = "It is told that the river froze. " * 20
                found = [{**event["documents"][0], "id": f"{i}-{n}", "text": f"{i}-{n} {text}"} for n in range(3)]
                sources += [{**d, "number": len(sources) + 1, "query": event["query"]} for d in found]
            events.append({**event, "documents": found} if found else event)
    trace = Trace.from_state({**result, "trace": [*events, *result["trace"][last + 1 :]], "sources": sources})
    text = page(trace)
    assert len(text.encode()) < 450_000
    tree = parsed(text)
    rounds = tree.all("details", "round")
    assert len(rounds) == searches + 1
    assert [i for i, r in enumerate(rounds) if "open" in r.attributes] == [0, 1, 2]
    assert tree.all("h4")[-1].text == f"Search {searches + 1}"
    assert "Joan Pike" in rounds[-1].text
    assert tree.text.count("Why:") == searches + 1
    assert "more events; trace.events has all of them" in tree.text
    assert "more sources; trace.sources has all of them" in tree.text
    assert "left out here; the trace has them" in tree.text
    assert "characters left out here" in tree.text
    assert "longest of 201 parts" in tree.text
