"""Segments cut out of generated tokens, reflection tokens included."""

import math

import pytest

from langgraph_dynrag.drafts.draft import Draft
from langgraph_dynrag.reflection.segments import cut, spaced
from langgraph_dynrag.reflection.vocabulary import ReflectionVocabulary
from rag_backbone.engine.signals import TokenStep

VOCABULARY = ReflectionVocabulary(
    {"yes": 100, "no": 101, "continue": 102},
    {"relevant": 103, "irrelevant": 104},
    {"full": 105, "partial": 106, "none": 107},
    {name: 107 + int(name) for name in "12345"},
    {"open": 113, "close": 114},
)


def wrote(*tokens, judged=()):
    """Return steps for pairs of (id, text); `judged` maps a position to {id: probability}."""
    judged = dict(judged)
    steps = []
    for t, (token, text) in enumerate(tokens):
        given = judged.get(t, {})
        reported = tuple(math.log(given.get(i, 1e-9)) for i in VOCABULARY.judged)
        steps.append(TokenStep(t, token, text, math.log(0.5), 0.25, token_logprobs=reported))
    return steps


TOKENS = [(103, ""), (1, "Wray"), (2, " built"), (105, ""), (110, ""), (107, ""), (100, ""), (3, "He")]


JUDGED = {
    0: {103: 0.6, 104: 0.2},
    1: {103: 0.1, 104: 0.9},
    3: {105: 0.5, 106: 0.25, 107: 0.25},
    4: {110: 0.4, 112: 0.4},
    5: {107: 1.0},
}


def test_a_segment_ends_at_the_next_retrieval_token_and_is_judged_at_its_reflection_tokens():
    part = cut(wrote(*TOKENS, judged=JUDGED), VOCABULARY, "end", fresh=True, evidence=True)
    assert part.draft.text == "Wray built"
    assert part.draft.token_ids == (1, 2)
    assert part.draft.logprobs == (math.log(0.5),) * 2
    assert part.draft.entropies == (0.25, 0.25)
    assert part.draft.ended == "unit"
    assert part.token_ids == (103, 1, 2, 105, 110, 107)
    assert part.critique.relevance == pytest.approx({"relevant": 0.75, "irrelevant": 0.25})
    assert part.critique.support == pytest.approx({"full": 0.5, "partial": 0.25, "none": 0.25})  # the first occurrence
    assert part.critique.utility["3"] == pytest.approx(0.5, abs=1e-6)


def test_relevance_is_read_at_the_first_position_whatever_token_is_there():
    steps = wrote((1, "Wray"), (103, ""), judged={0: {103: 0.2, 104: 0.6}, 1: {103: 1.0}})
    part = cut(steps, VOCABULARY, "end", fresh=True, evidence=True)
    assert part.critique.relevance == pytest.approx({"relevant": 0.25, "irrelevant": 0.75})
    assert (part.critique.support, part.critique.utility) == (None, None)
    assert part.draft.ended == "end"


def test_without_a_passage_there_is_no_relevance_and_no_support():
    steps = wrote(*TOKENS, judged=JUDGED)
    assert cut(steps, VOCABULARY, "end", fresh=False, evidence=False).critique.support is None
    kept = cut(steps, VOCABULARY, "end", fresh=False, evidence=True).critique
    assert kept.relevance is None
    assert kept.support is not None


def test_the_limit_counts_visible_tokens_and_leaves_room_for_judgements():
    steps = wrote((103, ""), (1, "Wray"), (2, " built"), (105, ""), (3, " it"), (110, ""), judged=JUDGED)
    part = cut(steps, VOCABULARY, "end", fresh=True, evidence=True, limit=2)
    assert (part.draft.text, part.draft.ended, part.token_ids) == ("Wray built", "limit", (103, 1, 2, 105))
    assert part.critique.support is not None
    assert part.critique.utility is None
    assert cut(steps, VOCABULARY, "end", fresh=True, evidence=True, limit=3).draft.ended == "end"


def test_empty_output_gives_an_empty_segment():
    for steps in ([], wrote((100, ""), (1, "Wray"))):
        part = cut(steps, VOCABULARY, "end", fresh=True, evidence=True)
        assert (part.draft.text, part.token_ids) == ("", ())


def test_segments_do_not_run_together():
    draft = Draft(("", "He", " was"), (0.0,) * 3)
    assert spaced("Wray built it.", draft).pieces == ("", " He", " was")
    assert spaced("", draft) == spaced("It. ", draft) == draft
    assert spaced("It.", Draft((" He",), (0.0,))).text == " He"
