"""Makes a `PeftModel` of a base model and an adapter, without copying the base model's weights.

PEFT replaces layers of a model in place. It therefore gets a copy of the modules, whose parameters are views of the
base model's weights: replacing a layer, or changing a dtype or device, affects only the copy. Writing into a weight
affects both models. PEFT does that when it merges an adapter, so `SharedWeightsPeftModel` makes it merge into a copy.
"""

from __future__ import annotations

import copy
import logging
from typing import TYPE_CHECKING

import torch
from peft import LoraConfig, PeftModelForCausalLM
from torch import nn

from llamaindex_prag.store.peft_folder import peft_config, peft_tensors

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from llamaindex_prag.adapters.adapter import Adapter
    from rag_backbone.loading.causal_lm import CausalLM

logger = logging.getLogger(__name__)

_NAME = "default"
"""Name of the adapter in PEFT, which saves this one into the folder itself and others into a subfolder."""


class SharedWeightsPeftModel(PeftModelForCausalLM):
    """A `PeftModel` that shares its base weights with another model, and therefore never merges into them in place."""

    def merge_and_unload(
        self,
        progressbar: bool = False,
        safe_merge: bool = True,
        adapter_names: list[str] | None = None,
    ) -> PreTrainedModel:
        """Merge like `PeftModel.merge_and_unload`, but always with `safe_merge=True`.

        Returns:
            A model that has its own weights in the merged layers and still shares all others.
        """
        _warn_unless(safe_merge)
        return self.base_model.merge_and_unload(progressbar, True, adapter_names)

    def merge_adapter(
        self,
        adapter_names: list[str] | None = None,
        safe_merge: bool = True,
    ) -> None:
        """Merge like `PeftModel.merge_adapter`, but always with `safe_merge=True`."""
        _warn_unless(safe_merge)
        self.base_model.merge_adapter(adapter_names, True)


def _warn_unless(safe_merge: bool) -> None:
    if not safe_merge:
        logger.warning("safe_merge=False would change the base model, whose weights are shared; merging safely instead")


def peft_model(lm: CausalLM, adapter: Adapter) -> SharedWeightsPeftModel:
    """Return a `PeftModel` that shares the weights of a base model and has the adapter active.

    Args:
        lm: The base model. It is not changed, and may generate at the same time.
        adapter: An adapter whose layout fits the model.
    """
    # The engine patches forwards and the attention function during a step; on its thread, none is patched now.
    base = lm.engine.run(_sharing_copy, lm.model)
    config = LoraConfig(**peft_config(adapter, lm.model.name_or_path or None))
    # low_cpu_mem_usage creates the factors on the meta device, so that PEFT does not draw random numbers for them.
    model = SharedWeightsPeftModel(base, config, _NAME, low_cpu_mem_usage=True)
    factors = {
        name.replace(".weight", f".{_NAME}.weight"): torch.from_numpy(values).to(lm.model.device)
        for name, values in peft_tensors(adapter)
    }
    # set_peft_model_state_dict would round the factors to the base model's dtype.
    unknown = model.load_state_dict(factors, strict=False, assign=True).unexpected_keys
    assert not unknown, unknown
    assert not any(p.is_meta for p in model.parameters()), "PEFT adapts a layer that the layout does not have"
    return model.eval()


def _sharing_copy(model: PreTrainedModel) -> PreTrainedModel:
    """Copy a model's modules and buffers, with parameters that are views of its weights."""
    # The parameter objects are new because PEFT sets their requires_grad. Quantised ones are more than a view: copied.
    views = {
        id(p): nn.Parameter(p.detach(), requires_grad=False) for p in model.parameters() if type(p) is nn.Parameter
    }
    return copy.deepcopy(model, views)
