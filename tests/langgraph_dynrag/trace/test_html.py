"""The trace as an HTML page."""

import re
from html.parser import HTMLParser

from langchain_core.documents import Document

from langgraph_dynrag import AnswerPrompt, Trace, create_dynamic_rag
from tests.langgraph_dynrag.scripted import ScriptedChatModel, WatchedRetriever

HOSTILE = "<script>alert(\"x\")</script> & 'quoted'"


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
