"""The rounds of a run as HTML."""

from langgraph_dynrag import AnswerPrompt, Budgets, Trace, create_dynamic_rag
from langgraph_dynrag.trace.html import page
from tests.langgraph_dynrag.scripted import ScriptedChatModel, WatchedRetriever, said
from tests.langgraph_dynrag.trace.conftest import QUESTION
from tests.langgraph_dynrag.trace.parsed import parsed


def rounds(state):
    return parsed(page(Trace.from_state(state))).all("details", "round")


def run(*replies, preset="flare", **options):
    graph = create_dynamic_rag(
        ScriptedChatModel(replies=[said(r) if isinstance(r, str) else r for r in replies]),
        WatchedRetriever(),
        preset=preset,
        prompt=AnswerPrompt(),
        **options,
    )
    return graph.invoke({"question": QUESTION})


def test_a_search_shows_reason_query_passages_and_the_change(result):
    _, second = rounds(result)
    assert second.one("p", "why").text.startswith("Why: Unsure at \u201cJoan\u201d: lowest probability 0.1, below the")
    assert second.one("p", "query").text == "The bridge was built by Pike."
    found = [e for e in result["trace"] if e["type"] == "retrieval"][1]["documents"]
    assert [b.text for b in second.one("ol", "passages").all("b")] == [d["title"] for d in found]
    before, after = second.one("dl", "change").all("dd")
    assert before.text == "The bridge was built by Joan Pike."
    assert after.text == "The bridge was built by Aldous Wray."
    assert [e.text.split() for e in before.all("del")] == [["Joan", "Pike"]]
    assert [e.text.split() for e in after.all("ins")] == [["Aldous", "Wray"]]
    assert second.all("div", "strip")[0].one("i", "fired").text == " Joan"


def test_the_parts_of_a_round_stand_in_the_order_in_which_they_happened(result):
    text = rounds(result)[1].text
    story = ["Why:", "Searched for", "Before", "Joan Pike", "After", "Aldous Wray", "Written", "So the answer is"]
    at = 0
    for part in story:
        at = text.find(part, at)
        assert at >= 0, part


def test_a_passage_is_shown_in_full_once(result):
    first, second = rounds(result)
    bridge = "The Cooper's Bridge was built by the mason Aldous Wray."
    assert bridge in first.one("ol", "passages").text
    assert bridge not in second.text
    assert "found before, already in the prompt, text above" in second.one("ol", "passages").text


def test_a_long_passage_shows_its_first_lines_and_unfolds():
    from langchain_core.documents import Document

    text = "Word " * 200
    graph = create_dynamic_rag(
        ScriptedChatModel(replies=[said("So the answer is Hallin.")]),
        WatchedRetriever(give=[Document(text, metadata={"title": "Long"})]),
        preset="single",
        prompt=AnswerPrompt(),
    )
    (only,) = rounds(graph.invoke({"question": QUESTION}))
    folded = only.one("details", "text")
    assert 100 < len(folded.one("span", "lead").text) < 200
    assert folded.one("p").text == text.strip()


def test_a_sentence_written_again_without_a_change_says_so():
    doubtful = said("The bridge was built by Wray. Then it was", Wray=0.1)
    second = rounds(run(doubtful, "The bridge was built by Wray. So it", " So the answer is Wray."))[1]
    assert "Written again, without a change" in second.text
    assert not second.all("dl", "change")


def test_budgets_and_the_explicit_request_for_an_answer_are_told():
    text = rounds(run("One two three four five six.", "Wray.", preset="no_retrieval", budgets=Budgets(tokens=4)))[
        0
    ].text
    assert "The budget of 4 tokens was used up." in text
    assert "Asked outright for the short answer: \u201cSo the answer is\u201d was written" in text
