"""Events as lines of a trace: one example of each kind."""

from typing import get_args

import pytest

from langgraph_dynrag.events.events import Event
from langgraph_dynrag.trace.lines import event_lines


def document(title, *, new=True):
    return {"title": title, "source": "", "text": "Text.", "id": "1", "new": new}


SAID = {
    "condensed": [
        (
            {"asked": "And he?", "question": "And Wray?", "turns": 2, "left_out": 0, "problem": None},
            ["asked with 2 earlier turns: And he?", "condensed to: And Wray?"],
        ),
        (
            {"asked": "And he?", "question": "And he?", "turns": 9, "left_out": 3, "problem": "too long"},
            ["asked with 9 earlier turns: And he?", "taken as it is: too long", "3 turns did not fit"],
        ),
    ],
    "route": [
        ({"route": "multi", "by": "the model", "problem": None}, ["several retrievals, classified by the model"]),
        ({"route": "single", "by": "f", "problem": "it failed"}, ["one retrieval, not classified: it failed"]),
    ],
    "resume": [
        ({"kept": "It was", "evidence": ["1"]}, []),
        ({"kept": "It was", "left_out": ["2", "3"]}, ["2 left out, as no more passages may be collected"]),
    ],
    "not_text": [({"warning": "an image"}, ["an image"])],
    "reasoning": [
        ({"text": "Hm.\nWho?", "tokens": 3}, ["reasoned (3 tokens): Hm. Who?"]),
        ({"text": "", "tokens": 3}, ["reasoned (3 tokens): the text was not passed on"]),
        ({"text": "x" * 400, "tokens": 9}, [f"reasoned (9 tokens): {'x' * 300} [100 more characters]"]),
    ],
    "repetition": [({"text": "It was."}, ["left out, as it repeats the text before: It was."])],
    "no_text": [
        ({"problem": "no text", "outcome": "given up"}, ["a reply brought no new text (no text): given up"]),
    ],
    "budget": [({"which": "tokens", "limit": 256}, ["budget reached: tokens (256)"])],
    "retrieval": [
        (
            {"query": "q", "documents": [document("Bridge"), document("Wray", new=False)], "error": None},
            ["searched: q", "found: Bridge; Wray (seen)"],
        ),
        ({"query": "q", "documents": [], "error": None}, ["searched: q", "found: nothing"]),
        (
            {"query": "q", "documents": [], "error": "OSError: gone"},
            ["searched: q", "found: nothing, the search failed: OSError: gone"],
        ),
    ],
    "reformulation": [
        ({"problem": None, "outcome": "evidence"}, []),
        ({"problem": "low scores", "outcome": "nothing found"}, ["low scores: nothing found"]),
        ({"problem": "same query", "rewrite": 1, "query": "q"}, ["same query: searching again: q"]),
    ],
    "evidence_choice": [
        (
            {
                "by": "least uncertain",
                "candidates": [{"id": "1", "title": "Bridge"}, {"id": "2", "title": ""}],
                "kept": ["2"],
            },
            ["kept, as the least uncertain of 2: 2"],
        ),
        ({"by": "least uncertain", "candidates": [], "kept": []}, ["kept, as the least uncertain of 0: nothing new"]),
        ({"by": "place", "node": "resume"}, ["chosen: {'by': 'place'}"]),
    ],
    "digest": [
        ({"text": "Wray built it.", "problem": None}, ["condensed: Wray built it."]),
        ({"text": None, "problem": "no time is left"}, ["inserted as found: no time is left"]),
    ],
    "injection": [
        (
            {
                "in_weights": ["1", "2"],
                "trained": 1,
                "translated": 0,
                "strength": 0.5,
                "forgetting": 0.25,
                "training": {"documents": ["Bridge"], "estimated": 20.0},
                "preparing_seconds": 10.0,
                "in_prompt_because": {"3": "too long"},
                "left_out": {"4": "older"},
                "conflicts": {"pairs": [{"nats": 1.25, "answers": ["a", "b"]}]},
            },
            [
                "into the weights: 2 passages (1 trained, strength 0.5, forgets 0.25 nats)",
                "trained first: Bridge (10 s, estimated 20 s)",
                "3 stays in the prompt: too long",
                "4 is left out: older",
                "contradiction, 1.2 nats: a / b",
            ],
        ),
        # As versions before these fields wrote it.
        (
            {"in_weights": ["1"], "trained": 0, "translated": 0, "in_prompt_because": {}},
            ["into the weights: 1 passages"],
        ),
    ],
    "inserted": [
        ({"problem": None, "text": "\n[1] Wray."}, []),
        ({"problem": "empty", "text": "\nThe search\nwas empty."}, ["told the model (empty): The search was empty."]),
    ],
    "closing": [({"text": "So"}, ["asked outright for the short answer"])],
    "final_answer": [
        (
            {
                "taken": "documents",
                "reason": "surer",
                "candidates": [
                    {"basis": "rationales", "short_answer": "Orsa", "uncertainty": None},
                    {"basis": "documents", "short_answer": "Hallin", "uncertainty": -6.25},
                ],
            },
            [
                "answer from the rationales: 'Orsa', every sample empty",
                "answer from the documents: 'Hallin', uncertainty -6.250",
                "taken from the documents: surer",
            ],
        ),
        (
            {"taken": "written", "reason": "no time is left", "candidates": []},
            ["the answer stays as it was written: no time is left"],
        ),
    ],
    "kept": [({"reason": "the search failed"}, ["the answer before was kept: the search failed"])],
    "degraded": [({"reason": "no probabilities"}, ["not watched: no probabilities"])],
}
CASES = [(kind, fields, lines) for kind, cases in SAID.items() for fields, lines in cases]


@pytest.mark.parametrize(("kind", "fields", "lines"), CASES)
def test_what_a_person_reads_about_an_event(kind, fields, lines):
    assert [line.strip() for line in event_lines({"type": kind, **fields})] == lines


def test_a_kind_that_this_version_does_not_know_is_shown_with_its_fields():
    (line,) = event_lines({"type": "verification", "claims": 2, "node": "verify", "seconds": 1.0})
    assert line == "  verification, which this version of dynprag does not know: {'claims': 2}"


def test_every_kind_of_event_of_a_trace_is_known():
    kinds = {get_args(kind.__annotations__["type"])[0] for kind in get_args(Event)}
    elsewhere = kinds - set(SAID) - {"reflection", "continuations", "selection"}
    for kind in elsewhere:  # shown with the drafts, or at the beginning and the end of a trace
        assert event_lines({"type": kind}) == []
