"""The comparison of SeaKR's two answers, and its settings."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from langgraph_dynrag import create_dynamic_rag
from langgraph_dynrag.drafts.sampled_ends import SampleSpec
from langgraph_dynrag.generators.local_samples import sample_end
from langgraph_dynrag.seakr.final_answer import AnswerCandidate, SurerAnswer, surer
from rag_backbone.errors import ConfigurationError, SignalUnavailableError
from tests.langgraph_dynrag.recorded import task_of
from tests.langgraph_dynrag.scripted import ScriptedChatModel, WatchedRetriever

FEW = SampleSpec(samples=2, max_tokens=6)


def candidate(basis, short, u):
    return AnswerCandidate(basis, f"So the answer is {short}.", short, u)


@pytest.mark.parametrize(
    ("rationales", "documents", "taken", "reason"),
    [
        (("Hallin", -6.1), ("Brannoch", -6.2), "documents", "uncertainty -6.200 < -6.100"),
        (("Hallin", -6.2), ("Brannoch", -6.1), "rationales", "uncertainty -6.200 < -6.100"),
        (("Hallin", -6.0), ("Brannoch", -6.0), "rationales", "equally uncertain"),
        # A blank or unknown answer loses, however certain it is.
        (("unknown", -9.0), ("Brannoch", 3.0), "documents", "says nothing"),
        (("Hallin", 3.0), ("It is Unknown", -9.0), "rationales", "says nothing"),
        (("", -9.0), ("Brannoch", 3.0), "documents", "says nothing"),
        (("Hallin", None), (" ", -9.0), "rationales", "says nothing"),
        (("unknown", -5.0), ("", -6.0), "documents", "uncertainty"),
        # If all samples are empty, the answer is less certain than any number.
        (("Hallin", None), ("Brannoch", 99.0), "documents", "every sample of the other one was empty"),
        (("Hallin", 99.0), ("Brannoch", None), "rationales", "every sample of the other one was empty"),
        (("Hallin", None), ("Brannoch", None), "rationales", "equally uncertain"),
        # Part of a word does not count as the word.
        (("Unknownville", 1.0), ("Brannoch", 2.0), "rationales", "uncertainty"),
    ],
)
def test_the_more_certain_answer_wins_and_a_blank_or_unknown_one_loses(rationales, documents, taken, reason):
    found = surer(candidate("rationales", *rationales), candidate("documents", *documents))
    assert found.answer.basis == taken
    assert reason in found.reason


_SHORT = st.sampled_from(["Hallin", "Brannoch", "unknown", ""])
_U = st.none() | st.floats(-20, 20)


@given(_SHORT, _U, _SHORT, _U)
def test_no_better_answer_is_discarded(a, u, b, v):
    both = [candidate("rationales", a, u), candidate("documents", b, v)]
    taken = surer(*both).answer
    (other,) = [c for c in both if c is not taken]
    assert not (taken.is_none and not other.is_none)
    if taken.is_none == other.is_none:
        assert other.uncertainty is None or (taken.uncertainty is not None and taken.uncertainty <= other.uncertainty)


def test_samples_of_rationales_end_with_the_sentence_and_those_of_documents_with_the_short_answer():
    choosing = SurerAnswer(FEW)
    assert choosing.samples_of("rationales") == FEW
    assert choosing.samples_of("documents") == replace(FEW, until="answer")
    task = task_of("Q?", "So the answer is")
    text = "Wray built it. So the answer is Hallin. And then"
    sentence, answer = (sample_end(task, choosing.samples_of(b), text) for b in ("rationales", "documents"))
    assert (text[:sentence], text[:answer]) == ("Wray built it.", "Wray built it. So the answer is Hallin.")
    assert sample_end(task, choosing.samples_of("documents"), "Wray built it. So the answer is Hal") is None
    assert sample_end(replace(task, stop=("\n",)), choosing.samples_of("documents"), "Wray.\nSo") == len("Wray.")
    # Without a phrase, only the model, a stop string or the limit ends an answer.
    assert sample_end(replace(task, answer_phrase=None), choosing.samples_of("documents"), text) is None


# ---------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: SurerAnswer(alpha=0), "alpha is 0; more than 0"),
        (lambda: SurerAnswer(20), "sampling is 20 .*a SampleSpec is needed"),
        (lambda: SampleSpec(until="word"), "until is 'word'; known: 'sentence', 'answer'"),
    ],
)
def test_values_out_of_range_are_named(make, message):
    with pytest.raises(ConfigurationError, match=message):
        make()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"preset": "single", "final_answer": True}, "final_answer is True .*a SurerAnswer"),
        ({"preset": "search_tag", "final_answer": SurerAnswer()}, "stand in the answer. Use final_answer=None"),
        ({"preset": "self_rag", "final_answer": SurerAnswer()}, "final_answer and selection both choose"),
        ({"preset": "flare", "final_answer": SurerAnswer()}, "leave the prompt after each sentence"),
    ],
)
def test_conflicting_settings_are_rejected_when_the_graph_is_built(chat, changes, message):
    with pytest.raises(ConfigurationError, match=message):
        create_dynamic_rag(chat, WatchedRetriever(), **changes)


def test_a_remote_model_is_rejected_when_the_graph_is_built():
    with pytest.raises(SignalUnavailableError, match="needs end_states, which ScriptedChatModel cannot give"):
        create_dynamic_rag(
            ScriptedChatModel(replies=[]), WatchedRetriever(), preset="single", final_answer=SurerAnswer()
        )
