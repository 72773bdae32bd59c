"""One hash for a model: config, tokenizer and weights.

Adapters, translators and calibrations are tied to it. Weights are hashed as bfloat16, so that a checkpoint has the same
fingerprint in every dtype that it is loaded in.
"""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

# Keys that describe how and from where the model was loaded; they do not change what it computes.
_NOT_IDENTITY = {
    "_name_or_path",
    "architectures",
    "dtype",
    "torch_dtype",
    "transformers_version",
    "use_cache",
    "_attn_implementation",
    "attn_implementation",
    "quantization_config",
    "output_attentions",
    "output_hidden_states",
    "return_dict",
}


def model_fingerprint(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> str:
    """Return the SHA-256 over config, tokenizer and every parameter, as 64 hexadecimal digits."""
    digest = hashlib.sha256()
    config = {k: v for k, v in model.config.to_dict().items() if k not in _NOT_IDENTITY}
    digest.update(json.dumps(config, sort_keys=True, default=str).encode())
    digest.update(_tokenizer_text(tokenizer).encode())
    for name, parameter in sorted(model.named_parameters()):
        digest.update(f"{name}{tuple(parameter.shape)}".encode())
        values = parameter.detach().to(torch.bfloat16).contiguous().cpu()
        digest.update(values.flatten().view(torch.uint8).numpy())
    return digest.hexdigest()


def _tokenizer_text(tokenizer: PreTrainedTokenizerBase) -> str:
    template = tokenizer.chat_template or ""
    if tokenizer.is_fast:
        # Padding and truncation are settings that the latest call has left in the backend.
        state = json.loads(tokenizer.backend_tokenizer.to_str())
        state.pop("padding", None)
        state.pop("truncation", None)
        return json.dumps(state, sort_keys=True) + str(template)
    return json.dumps(tokenizer.get_vocab(), sort_keys=True) + str(template)
