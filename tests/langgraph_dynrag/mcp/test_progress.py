"""Messages of progress notifications."""

from langgraph_dynrag.mcp.progress import progress_message

FOUND = {"title": "Bridge", "source": "bridge.md", "text": "It was built by Wray.", "id": "1"}


def searched(**changes):
    return {"type": "retrieval", "query": "bridge", "documents": [FOUND], "error": None, **changes}


def test_a_search_says_what_it_found():
    assert progress_message(searched()) == "searched for 'bridge': Bridge"
    assert progress_message(searched(documents=[])) == "searched for 'bridge': nothing found"


def test_a_failed_search_does_not_tell_its_error():
    told = progress_message(searched(documents=[], error="OSError: /home/someone/index"))
    assert told == "searched for 'bridge': failed"


def test_a_verdict_is_told_if_it_leads_to_a_search():
    verdict = {"type": "verdict", "tokens": 3, "retrieve": True, "reason": "probability 0.2"}
    assert progress_message(verdict) == "unsure: probability 0.2"
    assert progress_message({**verdict, "retrieve": False}) == ""


def test_tokens_are_not_told_and_other_events_are_as_in_a_trace():
    assert progress_message({"type": "token", "text": "a", "logprob": None, "entropy": None}) == ""
    assert progress_message({"type": "budget", "which": "tokens", "limit": 8}) == "budget reached: tokens (8)"


def test_what_other_code_sends_is_not_told():
    for event in ("text", {"type": "mine", "secret": 1}, {"secret": 1}, None):
        assert progress_message(event) == ""


def test_training_is_told_by_its_progress():
    event = {"type": "training", "made": 1, "of": 3, "part": 0.4, "documents": ["a"]}
    assert progress_message(event) == "training adapters: 1 of 3 documents, 40%"


def test_long_messages_are_cut():
    assert len(progress_message(searched(query="x" * 5000))) < 320
