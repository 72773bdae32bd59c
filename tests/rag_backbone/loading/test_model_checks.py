"""Objects passed instead of a model (wrapped, adapted, headless, foreign) are refused with the line to write."""

import copy
import json
import shutil
import warnings

import pytest
import torch
from accelerate import cpu_offload, dispatch_model
from peft import LoraConfig, PeftModel, PromptTuningConfig, get_peft_model
from transformers import (
    AutoModelForSequenceClassification,
    LlamaConfig,
    LlamaForSequenceClassification,
    LlamaModel,
    pipeline,
)

from llamaindex_prag.parametric_model import ParametricModel
from llamaindex_prag.store.lmdb_store import LMDBStore
from rag_backbone.engine.requests import Request
from rag_backbone.errors import ConfigurationError, DynPragError, ModelLoadError
from rag_backbone.loading.causal_lm import CausalLM
from tests.tiny import tiny_folder, tiny_llama, tiny_tokenizer

LORA = LoraConfig(r=2, target_modules=["up_proj"], task_type="CAUSAL_LM", init_lora_weights=False)


def refused(model, tokenizer=None):
    with pytest.raises(DynPragError) as caught:
        CausalLM(model, tiny_tokenizer() if tokenizer is None else tokenizer)
    return str(caught.value)


def test_a_peft_model_must_be_merged_first():
    adapted = get_peft_model(tiny_llama(), LORA)
    assert "CausalLM(model.merge_and_unload(), tokenizer)" in refused(adapted)
    merged = CausalLM(adapted.merge_and_unload(), tiny_tokenizer())
    assert merged.engine.generate(Request("The river", 3)).token_ids


@pytest.mark.parametrize("mixed", [False, True])
def test_an_adapter_inside_a_plain_class_is_detected(mixed):
    model = tiny_llama()
    get_peft_model(model, LORA, mixed=mixed)
    assert "contains a PEFT adapter" in refused(model)
    assert "merge_and_unload" in refused(get_peft_model(tiny_llama(), LORA, mixed=mixed))


def test_an_adapter_loaded_by_transformers_is_detected():
    model = tiny_llama()
    model.add_adapter(LORA)
    assert "delete_adapter" in refused(model)


def test_prompt_tuning_is_refused_too():
    tuned = get_peft_model(tiny_llama(), PromptTuningConfig(num_virtual_tokens=2, task_type="CAUSAL_LM"))
    assert "CausalLM(model.get_base_model(), tokenizer)" in refused(tuned)
    assert CausalLM(tuned.get_base_model(), tiny_tokenizer()).engine.generate(Request("The river", 3)).token_ids


@pytest.mark.parametrize("with_config", [False, True])
def test_the_error_for_an_adapter_folder_names_the_base_model_and_what_to_do(tmp_path, with_config):
    base = tiny_folder(tmp_path / "base")
    folder = tmp_path / "adapter"
    PeftModel(tiny_llama(), LORA).save_pretrained(folder)
    config = json.loads((folder / "adapter_config.json").read_text("utf-8"))
    (folder / "adapter_config.json").write_text(json.dumps({**config, "base_model_name_or_path": str(base)}), "utf-8")
    if with_config:  # some training scripts also save this file
        shutil.copy(base / "config.json", folder)
        tiny_tokenizer().save_pretrained(folder)
    for given in (folder, str(folder)):
        with pytest.raises(ModelLoadError, match=r"PEFT adapter for .*base.*merge_and_unload\(\)\.save_pretrained"):
            CausalLM.from_pretrained(given)


@pytest.mark.filterwarnings("ignore")
def test_the_error_for_a_wrapped_model_shows_how_to_unwrap_it():
    model = tiny_llama()
    assert "before torch.compile" in refused(torch.compile(model))
    assert "CausalLM(model.module, tokenizer)" in refused(torch.nn.DataParallel(model))
    assert "CausalLM(pipe.model, pipe.tokenizer)" in refused(
        pipeline("text-generation", model=model, tokenizer=copy.deepcopy(tiny_tokenizer()))
    )


def test_weights_that_are_not_in_memory_are_refused():
    model = tiny_llama()
    cpu_offload(model)
    assert "not in memory" in refused(model)
    with torch.device("meta"):
        assert "not in memory" in refused(LlamaModel(LlamaConfig(num_hidden_layers=1)).base_model)


def test_a_model_with_a_device_map_on_one_device_works():
    whole = CausalLM(dispatch_model(tiny_llama(), {"": "cpu"}, force_hooks=True), tiny_tokenizer())
    plain = CausalLM(tiny_llama(), tiny_tokenizer())
    request = Request("The river", 5)
    assert whole.engine.generate(request).token_ids == plain.engine.generate(request).token_ids


@pytest.mark.parametrize("kind", [LlamaForSequenceClassification, LlamaModel])
def test_models_without_a_language_model_head_are_refused(kind, tmp_path):
    made = kind(LlamaConfig(**{**tiny_llama().config.to_dict(), "architectures": ["LlamaForCausalLM"]}))
    assert "AutoModelForCausalLM" in refused(made)
    loaded = AutoModelForSequenceClassification.from_pretrained(tiny_folder(tmp_path / "tiny"))
    assert "AutoModelForCausalLM" in refused(loaded)


def test_quantised_layers_are_refused_when_adapters_are_to_be_attached(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        quantised = torch.ao.quantization.quantize_dynamic(tiny_llama(), {torch.nn.Linear})
    lm = CausalLM(quantised, tiny_tokenizer())
    with (
        LMDBStore(tmp_path / "store", model=lm.fingerprint) as store,
        pytest.raises(ConfigurationError, match=r"mlp\.gate_proj .* is a Linear, not an nn\.Linear: a quantiser"),
    ):
        ParametricModel.of(lm, store)


@pytest.mark.parametrize(
    ("tokenizer", "message"),
    [
        ("embedded", "AutoTokenizer.from_pretrained"),
        (0, "the model's tokenizer is needed"),
        (tiny_tokenizer().backend_tokenizer, "PreTrainedTokenizerFast(tokenizer_object=...)"),
    ],
)
def test_objects_that_are_not_tokenizers_are_refused(tokenizer, message):
    assert message in refused(tiny_llama(), tokenizer)


def test_a_missing_tokenizer_and_swapped_arguments_are_explained():
    with pytest.raises(ConfigurationError, match="tokenizer is None"):
        CausalLM(tiny_llama(), None)
    assert "It is a tokenizer; pass the model first" in refused(tiny_tokenizer(), tiny_llama())


@pytest.mark.parametrize("name", ["embedded", None, 3, {"name": "embedded"}, LlamaConfig()])
def test_objects_that_are_not_models_are_refused(name):
    message = refused(name)
    assert "is needed" in message
    assert "from_pretrained" in message


def test_a_model_or_a_file_is_refused_as_a_name(tmp_path):
    with pytest.raises(ConfigurationError, match=r"CausalLM\(model, tokenizer\)"):
        CausalLM.from_pretrained(tiny_llama())
    (tmp_path / "model.gguf").write_bytes(b"GGUF")
    with pytest.raises(ModelLoadError, match="is a file; a model folder"):
        CausalLM.from_pretrained(tmp_path / "model.gguf")
