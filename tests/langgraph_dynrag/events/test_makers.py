"""Events that several nodes create."""

import json

from langgraph_dynrag.drafts.draft import Draft, Verdict
from langgraph_dynrag.events.makers import draft_event, verdict_event, with_cost


def test_a_draft_is_recorded_token_by_token_without_ids():
    draft = Draft(("It", " was"), (-0.1, -0.2), (0.5, 0.6), (4, 5), "limit")
    event = draft_event(draft, carried=1, evidence=["bridge"])
    assert event == {
        "type": "draft",
        "pieces": ["It", " was"],
        "logprobs": [-0.1, -0.2],
        "entropies": [0.5, 0.6],
        "carried": 1,
        "ended": "limit",
        "evidence": ["bridge"],
    }
    assert draft_event(Draft(), carried=0, evidence=[])["entropies"] is None


def test_a_verdict_is_recorded_with_everything_that_its_state_has():
    verdict = Verdict(True, "low", (0.5, None), 0.5, 0.8, 0, (0,), "own", {"sequences": 2})
    event = verdict_event(verdict, 7)
    assert event == {"type": "verdict", "tokens": 7, **verdict.to_state()}
    assert json.loads(json.dumps(event)) == event


def test_a_known_cost_is_added_and_an_unknown_one_leaves_the_event_alone():
    event = {"type": "own", "text": "x"}
    assert with_cost(event, None) is event
    assert with_cost(event, {"forward_tokens": 3}) == {"type": "own", "text": "x", "forward_tokens": 3}
    assert event == {"type": "own", "text": "x"}
