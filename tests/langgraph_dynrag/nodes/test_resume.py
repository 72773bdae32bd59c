"""The node that puts evidence in place, and decides which tokens of a draft to keep."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from langgraph_dynrag.drafts.draft import Draft, Verdict
from langgraph_dynrag.evidence import passage
from langgraph_dynrag.nodes import Resume, after_resume
from langgraph_dynrag.nodes.resume import kept_tokens, sources_with
from tests.langgraph_dynrag.recorded import view
from tests.langgraph_dynrag.running import events, scripted_settings

BRIDGE, WRAY, PIKE = (
    passage(f"About {name}.", {"title": name, "query": "q"}, name) for name in ("Bridge", "Wray", "Pike")
)
PIECES = ("It", " is", " old", ".", " It", " was", " Jo", "an", ".")


def unit_of(*pieces):
    return Draft(pieces, (-0.1,) * len(pieces))


def fired(position):
    return Verdict(True, "test", position=position).to_state()


def state_of(found, position, **changes):
    draft = view("It was Joan. He was").draft
    return {
        "question": "Who?",
        "draft": draft.to_state(),
        "judged": 4,
        "verdict": fired(position),
        "found": list(found),
        "run_id": "1",
        **changes,
    }


def resumed(found, position=2, state=None, **options):
    return Resume(scripted_settings(**options))(state_of(found, position, **(state or {})))


@pytest.mark.parametrize(
    ("resume_at", "position", "kept"),
    [
        ("sentence", 7, 4),
        ("word", 7, 6),
        ("token", 7, 7),
        ("end", 7, 9),
        ("sentence", 2, 0),
        ("word", 8, 8),  # punctuation is no part of a word
        ("sentence", None, 9),
        ("token", None, 9),
    ],
)
def test_how_much_of_a_draft_is_kept(resume_at, position, kept):
    settings = scripted_settings(resume_at=resume_at)
    verdict = fired(position)
    assert kept_tokens(unit_of(*PIECES), verdict, settings) == kept
    assert kept_tokens(unit_of(*PIECES), None, settings) == 9


def test_a_sentence_begins_with_the_token_of_its_first_letter():
    # The space before " He" belongs to the first sentence, but the token begins the second.
    settings = scripted_settings(resume_at="sentence")
    assert kept_tokens(unit_of("It is.", " He", " was", " Joan"), fired(1), settings) == 1
    assert kept_tokens(unit_of("It is.", " He", " was", " Joan"), fired(3), settings) == 1


@pytest.mark.parametrize("position", [2, 4, 5])
def test_white_space_before_a_sentence_is_written_again_with_it(position):
    unit = unit_of("It", " is.", " ", "\n", "He", " was")
    settings = scripted_settings(resume_at="sentence")
    assert kept_tokens(unit, fired(position), settings) == 2


def test_white_space_at_the_end_belongs_to_the_last_sentence():
    settings = scripted_settings(resume_at="sentence")
    assert kept_tokens(unit_of("It is.", " He", " was", " "), fired(3), settings) == 1


@pytest.fixture(scope="module")
def resuming():
    return {name: scripted_settings(resume_at=name) for name in ("sentence", "word", "token", "end")}


@given(
    pieces=st.lists(st.sampled_from(["It", " was", " Jo", "an", ".", "\n", " "]), min_size=1, max_size=9),
    data=st.data(),
)
def test_nothing_from_the_position_on_is_kept_unless_the_draft_resumes_at_its_end(resuming, pieces, data):
    position = data.draw(st.integers(0, len(pieces) - 1))
    at = {name: kept_tokens(unit_of(*pieces), fired(position), settings) for name, settings in resuming.items()}
    assert 0 <= at["sentence"] <= at["token"] == position
    assert at["word"] <= at["token"]
    assert at["end"] == len(pieces)


def test_with_evidence_the_sentence_is_written_again():
    update = resumed([BRIDGE])
    assert (update["text"], update["draft"], update["regenerating"]) == ("", None, True)
    assert (update["evidence"], update["found"]) == ([BRIDGE], [])
    (event,) = events(update, "resume")
    assert (event["kept"], event["discarded"], event["discarded_tokens"]) == ("", "It was Joan.", 4)
    assert event["evidence"] == ["Bridge"]
    assert after_resume({"stage": "drafting", **update}) == "generate"


def test_without_evidence_the_sentence_stays_and_so_do_the_tokens_beyond_it():
    update = resumed([])
    assert (update["text"], update["regenerating"]) == ("It was Joan.", False)
    assert Draft.from_state(update["draft"]).text == " He was"
    assert update["sources"] == []


def test_with_evidence_the_tokens_beyond_the_sentence_are_dropped():
    update = resumed([BRIDGE], position=None)
    assert (update["text"], update["draft"], update["regenerating"]) == ("It was Joan.", None, False)


@pytest.mark.parametrize(
    ("life", "evidence"), [("replaced", [WRAY]), ("sentence", [WRAY]), ("accumulated", [BRIDGE, WRAY])]
)
def test_new_evidence_joins_or_replaces_the_old(life, evidence):
    update = resumed([WRAY], state={"evidence": [BRIDGE]}, evidence_life=life)
    assert update["evidence"] == evidence
    # A search without results leaves everything as it was.
    assert resumed([], state={"evidence": [BRIDGE]}, evidence_life=life)["evidence"] == [BRIDGE]


def test_a_kept_sentence_that_completes_the_answer_ends_it():
    draft = view("So the answer is Joan. He was").draft
    state = {"draft": draft.to_state(), "judged": 6}
    update = resumed([], state=state)
    assert (update["stage"], update["short_answer"]) == ("done", "Joan")
    assert after_resume(update) == "__end__"
    assert after_resume({"stage": "concluding"}) == "conclude"


def test_sources_are_numbered_in_the_order_in_which_they_were_found_and_listed_once():
    first = sources_with([], [BRIDGE, WRAY])
    both = sources_with(first, [WRAY, PIKE])
    assert [(s["number"], s["id"], s["query"]) for s in both] == [
        (1, "Bridge", "q"),
        (2, "Wray", "q"),
        (3, "Pike", "q"),
    ]
    assert both[:2] == first
