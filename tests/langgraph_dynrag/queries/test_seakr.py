"""SeaKR's query: the words that the model is certain of."""

import pytest

from langgraph_dynrag.drafts.draft import Verdict
from langgraph_dynrag.queries import KnownWords
from tests.langgraph_dynrag.recorded import view


@pytest.mark.parametrize(
    ("text", "doubted", "accepted", "query"),
    [
        # "Joan" was doubted; "mason" was not; "bridge" was, but it occurs in the question.
        ("The mason Joan built the bridge.", {"Joan": 0.5, "bridge": 0.5}, "", "mason built bridge"),
        # A doubt of 0.1 does not count yet; more does.
        ("Its mason was Wray.", {"mason": 0.9, "Wray": 0.89}, "", "mason"),
        # The previous sentence makes "Wray" known; the one before that does not.
        ("Then Wray left Hallin.", {"Wray": 0.1, "Hallin": 0.1, "left": 0.1}, "Hallin is old. It was Wray.", "Wray"),
        # Words that announce an answer are no subject. Nothing is left, so the question's content words are used.
        ("So the answer is Joan.", {"Joan": 0.2}, "", "built bridge capital"),
    ],
)
def test_the_query_consists_of_the_known_parts_of_the_sentence(text, doubted, accepted, query):
    assert KnownWords().plan(view(text, doubted, accepted), Verdict(True, "")).queries == (query,)
