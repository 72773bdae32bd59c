"""Checks of objects passed as a language model or tokenizer; wrong ones are refused with the line to write instead.

Classes are recognised by name, so that neither PEFT nor a framework is imported.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from types import UnionType
from typing import TYPE_CHECKING, Any, NoReturn

from rag_backbone.checks import shown
from rag_backbone.errors import ConfigurationError, ModelLoadError

if TYPE_CHECKING:
    from torch import nn

_TUNED = re.compile(r"\.(lora_A|lora_embedding_A|ia3_l|hada_w1_a|lokr_w1|oft_R|vera_lambda_b)\b")
"""Parameter names of the PEFT methods that change layers."""
_MERGE = (
    "Merge it into the weights first: CausalLM(model.merge_and_unload(), tokenizer). To keep it separate, import its "
    "folder into a store (`dynprag store import`) and load the base model"
)
_PROMPT_TUNED = (
    "Its virtual tokens cannot be merged into the weights; give the base model without them: "
    "CausalLM(model.get_base_model(), tokenizer)"
)
_SERVER = (
    "Adapters need the model's weights in this process: pass a folder, a Hub id or CausalLM(model, tokenizer). For a "
    "vLLM server, use ParametricLLM(base_url='http://.../v1', store=FOLDER)"
)
_ADVICE = {
    "PeftModel": _MERGE,
    "PeftMixedModel": _MERGE,
    "OptimizedModule": "Pass the model as it was before torch.compile: a compiled forward reports no signals",
    "DataParallel": "Pass the model inside: CausalLM(model.module, tokenizer)",
    "DistributedDataParallel": "Pass the model inside: CausalLM(model.module, tokenizer)",
    "FullyShardedDataParallel": "Load the whole model instead; sharded weights cannot be read here",
    "PreTrainedModel": "Pass it together with its tokenizer: CausalLM(model, tokenizer)",
    "PreTrainedTokenizerBase": "It is a tokenizer; pass the model first: CausalLM(model, tokenizer)",
    "Pipeline": "Pass its model and tokenizer: CausalLM(pipe.model, pipe.tokenizer)",
    "LocalChatModel": "Pass the model inside: lm=chat.lm",
    "ParametricLLM": "Pass the model inside: lm=llm.model.lm",
    "ParametricModel": "Pass the model inside: lm=model.lm",
    "Engine": "Pass the CausalLM that the engine belongs to",
    "HuggingFaceLLM": "Pass the model and tokenizer that it was built from, CausalLM(model, tokenizer), or their name",
    "HuggingFacePipeline": "Pass its model and tokenizer: CausalLM(llm.pipeline.model, llm.pipeline.tokenizer)",
    "BaseLanguageModel": _SERVER,
    "BaseLLM": _SERVER,
    "LLM": _SERVER,
    "OpenAI": _SERVER,
    "PretrainedConfig": "It is a configuration without weights; pass the model that was loaded with it",
    "PreTrainedConfig": "It is a configuration without weights; pass the model that was loaded with it",
}
_TOKENIZER = "CausalLM(model, AutoTokenizer.from_pretrained(...))"


def refuse_unless_instance(name: str, given: object, types: type | UnionType, needed: str) -> None:
    """Refuse an object that is not a model of the expected type.

    Args:
        name: The argument.
        given: The value that was passed.
        types: The accepted types.
        needed: The accepted types in words.

    Raises:
        ConfigurationError: With the line to write, if the kind of object is known.
    """
    if not isinstance(given, types):
        _refuse(name, given, needed)


def refuse_unless_plain(model: Any, tokenizer: Any) -> None:
    """Refuse a model that is wrapped, adapted, headless or not in memory, and a tokenizer that is not one.

    Raises:
        ConfigurationError: With the line to write.
        ModelLoadError: If the model has no head that predicts the next token.
    """
    kinds = {kind.__name__ for kind in type(model).__mro__}
    if "PreTrainedModel" not in kinds or {"PeftModel", "PeftMixedModel"} & kinds:
        needed = "a decoder-only model of Transformers in memory (for a name or folder: CausalLM.from_pretrained(...))"
        _refuse("model", model, needed)
    _refuse_foreign_parameters(model)
    head = model.get_output_embeddings()
    if head is None and not model.can_generate() and not model.config.is_encoder_decoder:
        raise ModelLoadError(
            f"{type(model).__name__} has no head that predicts the next token; load the model with "
            "AutoModelForCausalLM.from_pretrained(...)"
        )
    if isinstance(tokenizer, str | Path) or not callable(tokenizer):
        hint = "; wrap it: PreTrainedTokenizerFast(tokenizer_object=...)" if _is_raw(tokenizer) else ""
        raise ConfigurationError(
            f"tokenizer is {shown(tokenizer)}; the model's tokenizer is needed: {_TOKENIZER}{hint}"
        )
    if hasattr(tokenizer, "tokenizer"):
        raise ConfigurationError(
            f"tokenizer is a {type(tokenizer).__name__}; pass the one inside: CausalLM(model, processor.tokenizer)"
        )


def refuse_adapter_folder(folder: Path, config: Mapping[str, Any]) -> None:
    """Refuse a folder that holds a PEFT adapter, recognised by its `adapter_config.json`.

    Raises:
        ModelLoadError: Naming the base model and the lines that merge both into a model.
    """
    base = config.get("base_model_name_or_path") or "its base model"
    raise ModelLoadError(
        f"{folder} is the folder of a PEFT adapter for {base}, not of a model. Merge both into a new folder: "
        f"AutoPeftModelForCausalLM.from_pretrained({str(folder)!r}).merge_and_unload().save_pretrained(NEW), and save "
        "the tokenizer there too; or load the base model and import the adapter for a passage: `dynprag store import`"
    )


def _refuse(name: str, given: object, needed: str) -> NoReturn:
    if isinstance(given, tuple | list):
        advice = "Combine model and tokenizer into one object: CausalLM(model, tokenizer)"
    else:
        kinds = [kind.__name__ for kind in type(given).__mro__]
        advice = next((_ADVICE[kind] for kind in kinds if kind in _ADVICE), "")
        if advice is _MERGE and getattr(getattr(given, "active_peft_config", None), "is_prompt_learning", False):
            advice = _PROMPT_TUNED
    shortly = f"a {type(given).__name__}" if advice else shown(given)
    raise ConfigurationError(f"{name} is {shortly}; {needed} is needed." + (f" {advice}." if advice else ""))


def _refuse_foreign_parameters(model: nn.Module) -> None:
    away = 0
    for name, parameter in model.named_parameters():
        if _TUNED.search(f".{name}"):
            raise ConfigurationError(
                f"{type(model).__name__} contains a PEFT adapter ({name}), which would count as part of the model. "
                "Load it as a PeftModel and merge it, CausalLM(PeftModel.from_pretrained(base, FOLDER)"
                ".merge_and_unload(), tokenizer), or remove it with model.delete_adapter(...)"
            )
        away += parameter.is_meta
    if away:
        raise ConfigurationError(
            f"{away} weights of {type(model).__name__} are not in memory (a device map keeps them on disk or offloads "
            "them). Load the whole model onto one device: CausalLM.from_pretrained(..., device='cpu')"
        )


def _is_raw(tokenizer: object) -> bool:
    return type(tokenizer).__module__.partition(".")[0] == "tokenizers"
