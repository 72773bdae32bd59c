"""Preset files: their content, when they warn, and what is refused."""

import json
import warnings

import pytest

from langgraph_dynrag import LocalChatModel, create_dynamic_rag, get_preset, reasoned_prompt
from langgraph_dynrag.commands.calibrate import Method
from langgraph_dynrag.drafts.sampled_ends import SampleSpec
from langgraph_dynrag.presets.file import (
    CalibratedFor,
    CalibrationWarning,
    PresetFile,
    PresetFileError,
    belonging,
    refuse_unless_writable,
)
from langgraph_dynrag.triggers import ETC, RIND, Entropy, Never, SelfAwareUncertainty, TokenProbability
from rag_backbone.errors import ConfigurationError
from rag_backbone.loading.causal_lm import CausalLM
from tests.langgraph_dynrag.scripted import ScriptedChatModel, WatchedRetriever
from tests.tiny import tiny_llama, tiny_tokenizer


@pytest.fixture
def chat(tiny_lm):
    return LocalChatModel.from_causal_lm(tiny_lm)


def file_of(chat, path, trigger=None, preset="dragin", prompt=None):
    about = belonging(chat, prompt or reasoned_prompt(6))
    return PresetFile(preset, "2wikimultihopqa", "paper", trigger or RIND(0.25), about).write(path)


@pytest.mark.parametrize(
    "trigger",
    [
        TokenProbability(0.3, "mean"),
        Entropy(1.5, content_only=False),
        RIND(0.2, "reference"),
        ETC(0.7),
        SelfAwareUncertainty(-5.5, SampleSpec(samples=3, state="mlp", until="answer")),
    ],
    ids=str,
)
def test_a_trigger_survives_a_round_trip_through_the_file(chat, tmp_path, trigger):
    path = file_of(chat, tmp_path / "p.json", trigger)
    assert PresetFile.read(path).trigger == trigger
    assert [p.name for p in tmp_path.iterdir()] == ["p.json"]  # no temporary file is left behind


@pytest.mark.parametrize("name", [m.value for m in Method])
def test_every_method_that_can_be_calibrated_can_be_saved(chat, tmp_path, name):
    trigger = get_preset(name).settings["trigger"]
    refuse_unless_writable(trigger)
    assert PresetFile.read(file_of(chat, tmp_path / "p.json", trigger, name)).trigger == trigger


def test_the_graph_uses_the_settings_of_the_method_and_the_threshold_of_the_file(chat, tmp_path):
    path = file_of(chat, tmp_path / "p.json")
    preset, published = get_preset(path), get_preset("dragin")
    assert preset.settings["trigger"] == RIND(0.25)
    assert {**preset.settings, "trigger": None} == {**published.settings, "trigger": None}
    assert (preset.name, preset.exemplars) == ("dragin", published.exemplars)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        create_dynamic_rag(chat, WatchedRetriever(), preset=path)
        create_dynamic_rag(chat, WatchedRetriever(), preset=str(path))


def test_the_warning_about_another_model_names_both_models(chat, tmp_path):
    path = file_of(chat, tmp_path / "p.json")
    other = LocalChatModel.from_causal_lm(CausalLM(tiny_llama(hidden_size=16), tiny_tokenizer(), name="smaller"))
    with pytest.warns(CalibrationWarning, match=r"calibrated for tiny \(.*used with smaller \("):
        create_dynamic_rag(other, WatchedRetriever(), preset=path)
    with warnings.catch_warnings():  # a trigger that is passed in replaces the calibrated one
        warnings.simplefilter("error")
        create_dynamic_rag(other, WatchedRetriever(), preset=path, trigger=RIND(0.1))


def test_using_another_prompt_warns(chat, tmp_path):
    path = file_of(chat, tmp_path / "p.json")
    with pytest.warns(CalibrationWarning, match="calibrated for tiny with another prompt"):
        create_dynamic_rag(chat, WatchedRetriever(), preset=path, prompt=reasoned_prompt(2))


def test_a_remote_model_is_identified_by_class_and_name(tmp_path):
    class Named(ScriptedChatModel):
        model_name: str = "gpt-x"

    about = belonging(Named(replies=[]), reasoned_prompt(6))
    assert (about.model, about.fingerprint) == ("gpt-x", "Named:gpt-x")
    path = PresetFile("flare", "hotpotqa", "paper", TokenProbability(0.4), about).write(tmp_path / "p.json")
    with pytest.warns(CalibrationWarning, match="used with gpt-y"):
        create_dynamic_rag(Named(replies=[], model_name="gpt-y"), WatchedRetriever(), preset=path)


def damaged(tmp_path, chat, change):
    path = file_of(chat, tmp_path / "p.json")
    value = json.loads(path.read_text("utf-8"))
    change(value)
    path.write_text(json.dumps(value), "utf-8")
    return path


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda v: v.pop("dynprag_preset"), "is not a preset file: it lacks 'dynprag_preset'"),
        (lambda v: v.update(dynprag_preset=7), "has version 7; this dynprag reads version 1"),
        (lambda v: v.pop("trigger"), "'trigger' is missing"),
        (lambda v: v.update(trigger="RIND"), "'trigger' is 'RIND'; an object is needed"),
        (lambda v: v["trigger"].update(kind="Sampling"), "names the trigger 'Sampling'; known: ETC, RIND"),
        (lambda v: v["trigger"].update(kind="Trigger"), "names the trigger 'Trigger'; known"),
        (lambda v: v["trigger"].update(kind="AllOf"), "names the trigger 'AllOf'; known"),
        (lambda v: v["trigger"]["options"].update(theta=1), "the unknown option theta; known: bundle, threshold"),
        (lambda v: v["trigger"]["options"].update(threshold=-1), "does not accept: RIND's threshold is -1"),
        (lambda v: v["trigger"]["options"].update(threshold="much"), "does not accept"),
        (lambda v: v["trigger"]["options"].pop("threshold"), "does not accept"),
        (lambda v: v.update(model=[]), "'model' is \\[\\]; an object is needed"),
        (lambda v: v["model"].pop("fingerprint"), "'fingerprint' is missing"),
        (lambda v: v.update(prompt=None), "'prompt' is None; a text is needed"),
        (lambda v: v.update(calibration=3), "'calibration' is 3"),
    ],
)
def test_a_damaged_or_foreign_file_is_refused_with_the_reason(tmp_path, chat, change, message):
    path = damaged(tmp_path, chat, change)
    with pytest.raises(PresetFileError, match=message):
        create_dynamic_rag(chat, WatchedRetriever(), preset=path)


@pytest.mark.parametrize(
    ("sampling", "message"),
    [
        (3, "'sampling' is 3; an object is needed"),
        ({"count": 3}, "SelfAwareUncertainty's sampling the unknown option count; known: layer, max_tokens"),
        ({"samples": "3"}, "does not accept: samples is '3'"),
        ({"samples": 2.5}, r"does not accept: samples is 2\.5"),
        ({"layer": True}, "does not accept: layer is True"),
        ({"until": "dawn"}, "does not accept: until is 'dawn'"),
        ({"samples": 0}, "does not accept: samples is 0; at least 1"),
    ],
)
def test_nested_options_of_a_trigger_are_checked(tmp_path, chat, sampling, message):
    path = file_of(chat, tmp_path / "p.json", SelfAwareUncertainty())
    value = json.loads(path.read_text("utf-8"))
    value["trigger"]["options"]["sampling"] = sampling
    path.write_text(json.dumps(value), "utf-8")
    with pytest.raises(PresetFileError, match=message):
        PresetFile.read(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda v: v.update(preset="flair"), "there is no preset 'flair'"),
        (lambda v: v.update(dataset="squad"), "no settings for data set 'squad'"),
        (lambda v: v.update(bundle="mine"), "bundle is 'mine'"),
        (lambda v: v.update(preset="other.json"), "other.json"),
    ],
)
def test_a_file_with_unknown_preset_dataset_or_bundle_is_refused(tmp_path, chat, change, message):
    with pytest.raises(ConfigurationError, match=message):
        get_preset(damaged(tmp_path, chat, change))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is damaged, it is not valid JSON"),
        ("", "is damaged"),
        ("[1]", "is not a preset file"),
        ("[" * 100_000, "is damaged"),
    ],
)
def test_invalid_json_is_refused(tmp_path, text, message):
    (tmp_path / "p.json").write_text(text)
    with pytest.raises(PresetFileError, match=message):
        get_preset(tmp_path / "p.json")


def test_errors_for_missing_and_unreadable_files_say_what_to_do(tmp_path):
    with pytest.raises(PresetFileError, match="there is no preset file .*mine.json; create one: dynprag calibrate"):
        get_preset(str(tmp_path / "mine.json"))
    (tmp_path / "folder.json").mkdir()
    with pytest.raises(PresetFileError, match="cannot be read"):
        get_preset(tmp_path / "folder.json")
    (tmp_path / "p.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(PresetFileError, match="cannot be read"):
        get_preset(tmp_path / "p.json")


def test_a_preset_that_a_file_cannot_describe_is_not_written(tmp_path):
    about = CalibratedFor("m", "f", "p")

    class Own(Never):
        pass

    with pytest.raises(ConfigurationError, match="is not a trigger from langgraph_dynrag.triggers"):
        PresetFile("flare", "hotpotqa", "paper", Own(), about).write(tmp_path / "p.json")
    with pytest.raises(ConfigurationError, match="is not a trigger from langgraph_dynrag.triggers"):
        refuse_unless_writable(Own())
    with pytest.raises(ConfigurationError, match="ends in .json"):
        PresetFile("flare", "hotpotqa", "paper", TokenProbability(), about).write(tmp_path / "preset")
    assert list(tmp_path.iterdir()) == []
