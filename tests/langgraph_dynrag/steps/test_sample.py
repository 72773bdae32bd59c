"""Sampled continuations of a state, and the passages that a selector chooses by them."""

import numpy as np
import pytest

from langgraph_dynrag import AnswerPrompt, create_nodes
from langgraph_dynrag.drafts.sampled_ends import SampleSpec
from langgraph_dynrag.evidence import passage
from langgraph_dynrag.seakr.evidence_selection import SelectedEvidence
from langgraph_dynrag.steps.sample import sampler, select
from rag_backbone.errors import ConfigurationError
from tests.langgraph_dynrag.running import scripted_settings
from tests.langgraph_dynrag.scripted import WatchedRetriever

FEW = SampleSpec(samples=2, max_tokens=3)
FOUND = [passage(f"Text {i}.", {"title": f"T{i}"}, str(i)) for i in range(3)]
STATE = {"question": "Who built the bridge?", "text": "It was"}


class Last:
    """Selects the last passage, and tries it out if it is asked to."""

    needs = frozenset()

    def __init__(self, spec=None):
        self.spec, self.seen, self.ends = spec, [], None

    def select(self, found, kept, try_out):
        self.seen.append(([p["id"] for p in found], [p["id"] for p in kept]))
        if self.spec is not None:
            self.ends = try_out([*kept, found[-1]], self.spec)
        return SelectedEvidence(list(found[-1:]), {"by": "place", "kept": [found[-1]["id"]]})


def settings_of(chat, **options):
    return create_nodes(chat, WatchedRetriever(), preset="single", prompt=AnswerPrompt(), **options).begin.settings


def test_the_same_state_gives_the_same_samples_and_another_one_does_not(chat):
    draw = [sampler(STATE, settings_of(chat))(FEW) for _ in range(2)]
    assert draw[0].texts == draw[1].texts
    assert np.allclose(draw[0].states, draw[1].states, atol=1e-5)
    assert draw[0].states.shape[0] == draw[0].cost["sequences"] == 2
    later = sampler({**STATE, "answer_tokens": 2}, settings_of(chat))(SampleSpec(samples=4, max_tokens=8))
    first = sampler(STATE, settings_of(chat))(SampleSpec(samples=4, max_tokens=8))
    assert later.texts != first.texts


def test_tokens_drafted_beyond_the_accepted_text_do_not_change_the_samples(chat):
    draft = {"pieces": [" Joan"], "logprobs": [-0.1], "entropies": None, "token_ids": [9], "ended": "unit"}
    settings = settings_of(chat)
    assert sampler({**STATE, "draft": draft}, settings)(FEW).texts == sampler(STATE, settings)(FEW).texts


def test_a_selector_sees_what_was_found_and_what_is_in_use_and_its_choice_is_recorded():
    selector = Last()
    state = {**STATE, "evidence": FOUND[:1]}
    chosen, events = select(state, scripted_settings(evidence_selector=selector), FOUND[1:])
    assert selector.seen == [(["1", "2"], ["0"])]
    assert chosen == FOUND[2:]
    assert events == [{"type": "evidence_choice", "by": "place", "kept": ["2"]}]


def test_passages_are_tried_out_in_the_prompt(chat):
    selector = Last(FEW)
    settings = settings_of(chat, evidence_selector=selector)
    select(STATE, settings, FOUND)
    direct = sampler({**STATE, "evidence": FOUND[2:]}, settings)(FEW)
    assert selector.ends.texts == direct.texts


def test_without_a_selector_or_without_passages_there_is_no_choice():
    selector = Last()
    assert select(STATE, scripted_settings(), FOUND) == (FOUND, [])
    assert select(STATE, scripted_settings(evidence_selector=selector), []) == ([], [])
    assert selector.seen == []


@pytest.mark.parametrize("returned", [None, FOUND, ("a", {})])
def test_anything_but_selected_evidence_is_refused_with_the_line_to_write(returned):
    class Wrong(Last):
        def select(self, found, kept, try_out):
            return returned

    settings = scripted_settings(evidence_selector=Wrong())
    with pytest.raises(ConfigurationError, match=r"select\(\) returned .*SelectedEvidence\(passages, "):
        select(STATE, settings, FOUND)
