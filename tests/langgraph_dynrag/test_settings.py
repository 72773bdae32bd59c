"""The settings of a graph: validated as a whole, and overridden for a run."""

from dataclasses import replace

import pytest

from langgraph_dynrag import Budgets, DynamicRAGContext, Reformulation, RetrievalPolicy
from langgraph_dynrag.injection.injector import PromptOnly
from langgraph_dynrag.queries import QFS, MaskedSentence, Question
from langgraph_dynrag.search_tags.formats import SEARCH_R1
from langgraph_dynrag.triggers import Entropy, EverySentence, Never, Once, WrittenTag
from rag_backbone.errors import ConfigurationError, SignalUnavailableError
from tests.langgraph_dynrag.running import scripted_settings
from tests.langgraph_dynrag.scripted import WatchedRetriever


def changed(settings, **changes):
    return replace(settings, **changes)


def test_the_signals_that_are_needed_are_those_of_all_parts():
    assert scripted_settings(trigger=Entropy(1.0), query=MaskedSentence()).needs == {"entropy", "logprob"}
    assert scripted_settings(trigger=Once(), query=Question()).needs == frozenset()


def test_a_signal_that_the_model_lacks_is_named_with_those_that_it_has():
    with pytest.raises(SignalUnavailableError, match="needs entropy; .* gives none"):
        changed(scripted_settings(trigger=Once(), query=Question()), trigger=Entropy(1.0))


@pytest.mark.parametrize(
    ("changes", "refused"),
    [
        ({"trigger": Never(), "initial_retrieval": False}, False),
        ({"trigger": Never(), "initial_retrieval": True}, True),
        ({"trigger": EverySentence(), "initial_retrieval": False}, True),
    ],
)
def test_only_a_method_that_never_retrieves_works_without_a_retriever(changes, refused):
    settings = scripted_settings(query=Question())
    if refused:
        with pytest.raises(ConfigurationError, match="no retriever was given, and this method retrieves"):
            changed(settings, retriever=None, **changes)
    else:
        assert changed(settings, retriever=None, **changes).retriever is None


def test_parts_that_cannot_be_combined_are_refused():
    with pytest.raises(ConfigurationError, match="QFS reads the attention of the token"):
        changed(scripted_settings(trigger=EverySentence(), query=Question()), query=QFS(5))


def test_searches_within_the_text_are_those_of_the_triggers_format():
    tagged = scripted_settings(preset="search_tag", prompt=None, trigger=WrittenTag(SEARCH_R1))
    assert tagged.tag_format == SEARCH_R1
    assert scripted_settings().tag_format is None


def test_without_an_injector_all_evidence_stands_in_the_prompt():
    assert isinstance(scripted_settings().placing, PromptOnly)


def test_a_users_system_text_goes_into_the_prompt_of_a_copy():
    settings = scripted_settings()
    told = settings.with_system("Be brief.")
    assert told.prompt.messages("Who?", ())[0].content.endswith("\n\nBe brief.")
    assert not settings.prompt.messages("Who?", ())[0].content.endswith("Be brief.")
    assert settings.with_system("") is settings


def test_a_runs_overrides_apply_to_a_copy_and_are_checked_like_any_settings():
    settings, other = scripted_settings(), WatchedRetriever()
    run = settings.overridden(DynamicRAGContext(k=7, retriever=other, budgets=Budgets(tokens=5)))
    assert (run.k, run.retriever, run.budgets.tokens) == (7, other, 5)
    assert (settings.k, settings.budgets) == (2, Budgets())
    assert run.trigger is settings.trigger
    assert settings.overridden(DynamicRAGContext()) is settings
    with pytest.raises(SignalUnavailableError):
        scripted_settings(trigger=Once(), query=Question()).overridden(DynamicRAGContext(trigger=Entropy(1.0)))


def test_a_limit_on_collected_passages_needs_passages_that_accumulate():
    with pytest.raises(ConfigurationError, match="max_passages limits passages that accumulate.*'replaced'"):
        scripted_settings(preset="ircot", evidence_life="replaced")


def test_a_route_replaces_trigger_query_and_final_answer():
    settings = scripted_settings(preset="adaptive_rag")
    assert settings.routed(None) is settings.routed("multi") is settings
    for route, trigger in (("none", Never()), ("single", Once())):
        routed = settings.routed(route)
        assert (routed.trigger, routed.query, routed.final_answer) == (trigger, Question(), None)
        assert not routed.initial_retrieval
        assert (routed.k, routed.budgets, routed.prompt) == (settings.k, settings.budgets, settings.prompt)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Reformulation(max_rewrites=-1), "max_rewrites is -1"),
        (lambda: Reformulation(repeats="drop"), "'drop'; known: 'use', 'skip'"),
        (lambda: RetrievalPolicy(timeout=0), "timeout is 0; more than 0"),
        (lambda: RetrievalPolicy(on_error="ignore"), "'ignore'; known: 'continue', 'raise'"),
    ],
)
def test_policies_out_of_range_are_refused(make, message):
    with pytest.raises(ConfigurationError, match=message):
        make()
