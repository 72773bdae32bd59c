"""From a preset, a model and options to settings."""

import pytest

from langgraph_dynrag import SegmentSelection, create_dynamic_rag, get_preset, reasoned_prompt
from langgraph_dynrag.assembly import make_injector, make_reflector, make_settings
from langgraph_dynrag.injection.injector import PromptOnly
from langgraph_dynrag.triggers import Reflection
from rag_backbone.errors import ConfigurationError
from tests.langgraph_dynrag.scripted import ScriptedChatModel, WatchedRetriever


def test_a_remote_model_is_rejected_when_the_graph_is_built():
    model = ScriptedChatModel(replies=[])
    with pytest.raises(ConfigurationError, match="ScriptedChatModel does not report. Use LocalChatModel"):
        create_dynamic_rag(model, WatchedRetriever(), preset="self_rag")
    assert not model.calls


def test_parts_that_are_given_replace_those_of_the_preset():
    preset = get_preset("flare")
    settings = make_settings(ScriptedChatModel(replies=[]), WatchedRetriever(), preset="flare", k=7)
    assert settings.k == 7
    assert settings.trigger == preset.settings["trigger"]
    assert settings.prompt == reasoned_prompt(preset.exemplars)


@pytest.mark.parametrize("preset", ["no_retrieval", "single", "fixed_sentence"])
def test_a_method_that_reads_no_signals_does_not_call_the_model(preset):
    model = ScriptedChatModel(replies=[], reports=False)
    settings = make_settings(model, WatchedRetriever(), preset=preset)
    assert settings.needs == settings.generator.signals == frozenset()
    assert model.options == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"looakhead": 5}, "create_nodes has no argument 'looakhead' .did you mean 'lookahead'"),
        ({"prompt": "Answer."}, r"prompt is 'Answer.' \(str\)"),
        ({"k": "3"}, r"k is '3' \(str\)"),
        ({"selection": SegmentSelection()}, "ScriptedChatModel does not report. Use LocalChatModel"),
        ({"trigger": Reflection()}, "selection is None: add selection=SegmentSelection"),
    ],
)
def test_options_that_do_not_fit_are_refused(options, message):
    with pytest.raises(ConfigurationError, match=message):
        make_settings(ScriptedChatModel(replies=[]), WatchedRetriever(), **{"preset": "single", **options})


def test_evidence_stays_in_the_prompt_unless_an_injection_is_asked_for(chat):
    assert make_injector(chat, "context", None) is None


@pytest.mark.parametrize(
    ("injection", "adapters", "message"),
    [
        ("contxt", None, r"injection is 'contxt' \(did you mean 'context'\?\); known: context, parametric, combined"),
        ("context", object(), "injection='context' uses no adapters"),
        ("parametric", None, "injection='parametric' needs the model's adapters: lm = CausalLM.from_pretrained"),
        (5, None, "injection is 5; an Injector, or one of context, parametric, combined"),
    ],
)
def test_an_injection_that_cannot_work_is_refused_with_the_lines_to_write(chat, injection, adapters, message):
    with pytest.raises(ConfigurationError, match=message):
        make_injector(chat, injection, adapters)


def test_an_injector_of_ones_own_is_used_and_excludes_other_adapters(chat):
    own = PromptOnly()
    assert make_injector(chat, own, None) is own
    with pytest.raises(ConfigurationError, match="the injector has its own adapters"):
        make_injector(chat, own, object())


def test_parameters_of_remote_models_and_of_fallbacks_cannot_be_changed(chat):
    remote = ScriptedChatModel(replies=[])
    with pytest.raises(ConfigurationError, match="those of ScriptedChatModel are not here. Use LocalChatModel"):
        make_injector(remote, "parametric", None)
    with pytest.raises(ConfigurationError, match="with fallbacks another may answer"):
        make_injector(chat.with_fallbacks([remote]), "combined", None)


def test_a_selection_is_written_by_asking_questions_if_the_model_has_no_reflection_tokens(chat):
    assert make_reflector(chat, SegmentSelection()).path == "classification"
    with pytest.raises(ConfigurationError, match="lacks 15 of 15 reflection tokens"):
        make_reflector(chat, SegmentSelection("tokens"))
    with pytest.raises(ConfigurationError, match=r"selection is 'tokens'; a SegmentSelection is needed"):
        make_reflector(chat, "tokens")
