"""The trace as text, as data and as an HTML page."""

import json
import re
from html.parser import HTMLParser

import pytest
from langchain_core.documents import Document
from langgraph.checkpoint.memory import InMemorySaver

from langgraph_dynrag import AnswerPrompt, Trace, create_dynamic_rag
from rag_backbone.errors import ConfigurationError
from tests.langgraph_dynrag.scripted import ScriptedChatModel, WatchedRetriever, said

QUESTION = "Who built the bridge?"
HOSTILE = "<script>alert(\"x\")</script> & 'quoted'"


@pytest.fixture
def result():
    replies = [
        said("The bridge was built by Joan Pike. Then it was", Joan=0.1),
        said("The bridge was built by Aldous Wray. So it is"),
        said(" So the answer is Aldous Wray."),
    ]
    graph = create_dynamic_rag(
        ScriptedChatModel(replies=replies), WatchedRetriever(), preset="flare", prompt=AnswerPrompt()
    )
    return graph.invoke({"question": QUESTION})


def test_tokens_have_probabilities_scores_and_fates(result):
    trace = Trace.from_state(result)
    first = trace.drafts[0]
    joan = next(t for t in first.tokens if t.text == " Joan")
    assert joan.fired
    assert joan.fate == "discarded"
    assert joan.probability == pytest.approx(0.1)
    assert next(t for t in first.tokens if t.text == " Then").fate == "looked ahead"
    assert sum(t.fired for d in trace.drafts for t in d.tokens) == 1
    accepted = "".join(t.text for d in trace.drafts for t in d.tokens if t.fate == "accepted")
    assert accepted.strip() == result["answer"]


def test_counts_and_seconds(result):
    trace = Trace.from_state(result)
    assert trace.counts["retrievals"] == len(trace.retrievals) == 2
    assert trace.counts["nothing_new"] == sum(all(not d["new"] for d in r["documents"]) for r in trace.retrievals)
    assert set(trace.seconds) >= {"begin", "generate", "monitor", "retrieve", "reformulate", "resume"}
    assert all(s >= 0 for s in trace.seconds.values())
    assert repr(trace) == f"Trace({QUESTION!r}: 2 retrievals, {len(trace.drafts)} drafts)"


def test_the_text_shows_the_run_in_order(result):
    text = str(Trace.from_state(result))
    story = [
        "Question: Who built",
        f"searched: {QUESTION}",
        "discarded: The bridge was built by Joan Pike.",
        "at 'Joan'",
        "searched: The bridge was built by Pike.",
        "wrote: The bridge was built by Aldous Wray.",
        "Answer: ",
        "Short answer: Aldous Wray",
        "[1] Bridge",
        "2 retrievals",
    ]
    places = [text.find(part) for part in story]
    assert -1 not in places, story[places.index(-1)]
    assert places == sorted(places)


def test_the_data_can_be_stored_as_json(result):
    told = json.loads(json.dumps(Trace.from_state(result).to_dict()))
    assert told["short_answer"] == "Aldous Wray"
    assert [s["number"] for s in told["sources"]] == list(range(1, len(told["sources"]) + 1))


class Page(HTMLParser):
    """Parser that checks that elements are closed, and collects tags and text."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.open, self.text = [], [], ""
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in ("meta", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def test_the_page_is_self_contained_and_well_formed(result, tmp_path):
    trace = Trace.from_state(result)
    path = trace.save_html(tmp_path / "deep" / "trace.html")
    text = path.read_text("utf-8")
    page = Page(text)
    assert trace._repr_html_() in text
    assert not {"script", "link", "img", "iframe"} & {tag for tag, _ in page.tags}
    assert not re.search(r"https?://|url\(|@import", text)
    assert sum(tag == "details" for tag, _ in page.tags) == 2
    fired = [a for tag, a in page.tags if tag == "span" and "fired" in a.get("class", "")]
    assert len(fired) == 1
    assert "p 0.100" in fired[0]["title"]
    colours = {a["style"] for tag, a in page.tags if tag == "span" and a.get("class", "").startswith("t")}
    assert len(colours) > 1


def test_hostile_text_is_escaped(tmp_path):
    document = Document(HOSTILE, id=HOSTILE, metadata={"title": HOSTILE, "source": HOSTILE})
    replies = [
        [(HOSTILE, 0.1), (".", 0.9), (" And", 0.9), (" so", 0.9)],
        [(HOSTILE, 0.9), (" So the answer is x.", 0.9)],
    ]
    retriever = WatchedRetriever(give=[document])
    graph = create_dynamic_rag(ScriptedChatModel(replies=replies), retriever, preset="flare", prompt=AnswerPrompt())
    trace = Trace.from_state(graph.invoke({"question": HOSTILE}))
    page = Page(trace.save_html(tmp_path / "trace.html").read_text("utf-8"))
    assert "script" not in {tag for tag, _ in page.tags}
    assert page.text.count('alert("x")') >= 4
    assert not any("alert" in str(a) for _, a in page.tags)


def test_an_unfinished_run_has_a_trace(result):
    events = result["trace"][:4]
    trace = Trace.from_state({"trace": events})
    assert trace.question == QUESTION
    assert trace.answer == ""
    assert str(trace)


def test_a_run_interrupted_before_its_search_shows_the_draft():
    model = ScriptedChatModel(replies=[said("The bridge was built by Joan Pike. Then it was", Joan=0.1)])
    graph = create_dynamic_rag(
        model,
        WatchedRetriever(),
        preset="flare",
        initial_retrieval=False,
        prompt=AnswerPrompt(),
        checkpointer=InMemorySaver(),
        interrupt_before=["retrieve"],
    )
    config = {"configurable": {"thread_id": "1"}}
    graph.invoke({"question": QUESTION}, config)
    text = str(Trace.from_state(graph.get_state(config).values))
    assert "  drafted: The bridge was built by Joan Pike. Then it\n  -> " in text


@pytest.mark.parametrize("state", [{}, {"messages": []}, {"trace": []}])
def test_a_state_without_a_trace_is_rejected(state):
    with pytest.raises(ConfigurationError, match="pass the result of graph.invoke"):
        Trace.from_state(state)
