"""A draft's tokens with their scores, as a strip and as a table."""

import math

from langgraph_dynrag.trace.draft_trace import DraftTrace, TokenTrace
from langgraph_dynrag.trace.markup import Allowance
from langgraph_dynrag.trace.token_strip import NO_SCORES, token_strip
from tests.langgraph_dynrag.trace.parsed import parsed

SIGNALS = [
    ("It", "accepted", 0.9),
    (" was\n", "discarded", 0.4),
    ("", "discarded", 0.6),
    (" <b>", "looked ahead", None),
]


def draft(verdict=None, signals=SIGNALS):
    tokens = tuple(
        TokenTrace(text, fate, None if p is None else math.log(p), 1.5, p, fired=verdict is not None and t == 1)
        for t, (text, fate, p) in enumerate(signals)
    )
    return DraftTrace(tokens, verdict, "unit", (), {})


def verdict(**changes):
    given = {"retrieve": True, "score": 0.4, "threshold": 0.5, "trigger": "token probability", **changes}
    return {"type": "verdict", "reason": "why", "tokens": 3, **given}


def test_each_token_has_a_bar_of_its_score_and_all_share_the_threshold():
    tree = parsed(token_strip(draft(verdict()), Allowance(9)))
    strip = tree.one("div", "strip")
    assert strip.attributes["style"] == "--t:50%"
    cells = strip.all("i")
    assert [c.attributes.get("style") for c in cells] == ["--h:90%", "--h:40%", "--h:60%", None]
    assert [c.attributes.get("title") for c in cells] == ["0.9", "0.4", "0.6", None]
    assert [c.text for c in cells] == ["It", " was\\n", "\u00a0", " <b>"]
    assert [c.classes for c in cells] == [[], ["gone", "hit", "fired"], ["gone"], ["ahead"]]
    assert "threshold 0.5; striped bars are below it" in tree.one("figcaption").text


def test_bars_of_unbounded_scores_are_scaled_to_the_largest_and_stripes_are_above_the_threshold():
    judged = verdict(trigger="RIND", threshold=0.5, score=2.0)
    tree = parsed(token_strip(draft(judged, [("a", "accepted", 0.5), ("b", "accepted", 0.25)]), Allowance(9)))
    assert tree.one("div", "strip").attributes["style"] == "--t:100%"
    tokens = (TokenTrace("a", "accepted", score=2.0), TokenTrace("b", "accepted", score=-2.0))
    tree = parsed(token_strip(DraftTrace(tokens, judged, "unit", (), {}), Allowance(9)))
    assert [c.attributes["style"] for c in tree.all("i")] == ["--h:100%", "--h:0%"]
    assert [c.classes for c in tree.all("i")] == [["hit"], []]
    assert tree.one("div", "strip").attributes["style"] == "--t:62%"


def test_the_table_says_the_same_in_numbers():
    table = parsed(token_strip(draft(verdict(trigger="RIND")), Allowance(9))).one("table")
    assert [th.text for th in table.one("thead").all("th")] == [
        "token", "RIND score", "probability", "entropy", "what happened",
    ]  # fmt: skip
    assert all(th.attributes["scope"] == "col" for th in table.one("thead").all("th"))
    rows = [[cell.text for cell in row.children] for row in table.one("tbody").all("tr")]
    assert rows[0] == ["It", "0.9", "0.9", "1.5", "kept"]
    assert rows[1][-1] == "discarded, search triggered"
    assert rows[3] == [" <b>", "", "", "1.5", "drafted beyond"]


def test_without_a_threshold_the_bars_are_probabilities():
    tree = parsed(token_strip(draft(), Allowance(9)))
    assert "style" not in tree.one("div", "strip").attributes
    assert tree.one("figcaption").text == "Probability of each token, from 0 to 1."


def test_tokens_without_any_signal_or_without_room_are_not_drawn():
    blind = DraftTrace((TokenTrace("It", "accepted"),), None, "unit", (), {})
    assert token_strip(blind, Allowance(9)) == NO_SCORES
    assert token_strip(DraftTrace((), None, "end", (), {}), Allowance(9)) == ""
    room = Allowance(5)
    assert "strip" in token_strip(draft(), room)
    assert "The scores of 4 tokens are left out here" in token_strip(draft(), room)
