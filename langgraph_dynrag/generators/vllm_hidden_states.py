"""A connector inside vLLM that writes hidden states of a prompt's last tokens to files, for `HiddenStateServer`.

vLLM keeps the states of chosen layers when it is started with the speculative method `extract_hidden_states`; what
happens to them is up to a connector. This one writes states only for requests that ask for them, on GPUs and on CPUs
(vLLM's own example, from which it is derived, needs a GPU's pinned memory). docs/vllm.md shows the command.

    request     `kv_transfer_params`: `{"dynprag_states": n}`, for the last n tokens of the prompt
    response    `kv_transfer_params`: `{"dynprag_states": name}`
    file        `name.safetensors` in the folder `shared_storage_path`, which appears once it is complete: `states`,
                (n, layers, width) in float32; its metadata hold `layers` (indices from 0, of those whose output was
                kept), `depth` (number of layers), and `eos` (id of the end-of-sequence token, or empty)

The client deletes a file after reading it. Unread files are deleted after ten minutes, when the next one is written.
"""

from __future__ import annotations

import logging
import secrets
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from vllm.config import get_layers_from_vllm_config
from vllm.distributed.kv_transfer.kv_connector.v1.base import KVConnectorMetadata
from vllm.distributed.kv_transfer.kv_connector.v1.example_hidden_states_connector import (
    ExampleHiddenStatesConnector,
    extract_from_kv_cache,
)
from vllm.distributed.parallel_state import get_tensor_model_parallel_rank
from vllm.model_executor.models.extract_hidden_states import CacheOnlyAttentionLayer

ASKED = "dynprag_states"
UNREAD_SECONDS = 600.0
logger = logging.getLogger("vllm.dynprag")


@dataclass(frozen=True)
class _Asked:
    """States that a finished request asked for."""

    request: str
    name: str
    tokens: int
    """Number of prompt tokens."""
    last: int
    blocks: list[int]


@dataclass
class _Metadata(KVConnectorMetadata):
    asked: list[_Asked] = field(default_factory=list)


class HiddenStateFiles(ExampleHiddenStatesConnector):
    """Writes the states that requests ask for. vLLM creates one in its scheduler and one in each worker."""

    def __init__(self, vllm_config: Any, role: Any, kv_cache_config: Any) -> None:
        super().__init__(vllm_config, role, kv_cache_config)
        self._asked: list[_Asked] = []
        self._config = vllm_config
        folder = vllm_config.kv_transfer_config.get_from_extra_config("shared_storage_path", None)
        if not folder:
            raise ValueError('kv_connector_extra_config needs {"shared_storage_path": FOLDER}, for the hidden states')
        self._folder = Path(folder)
        self._about: dict[str, str] = {}
        self._states: torch.Tensor | None = None

    # ----------------------------------------------------------------------------------------------- in the scheduler

    def build_connector_meta(self, scheduler_output: Any) -> KVConnectorMetadata:  # noqa: ARG002
        """Tell the workers which states to write."""
        asked, self._asked = self._asked, []
        return _Metadata(asked)

    def request_finished(self, request: Any, block_ids: list[int]) -> tuple[bool, dict[str, Any] | None]:
        """Name the file of a request that asks for states; its memory is kept until the file is written."""
        last = (request.kv_transfer_params or {}).get(ASKED)
        if last is None:
            return False, None
        tokens = len(request.prompt_token_ids or ())
        if type(last) is not int or not 1 <= last <= tokens:
            logger.warning("%s is %r; 1 to %d (the prompt's tokens) is needed", ASKED, last, tokens)
            return False, None
        name = secrets.token_hex(16)  # not the request's id, which a client may choose
        self._asked.append(_Asked(request.request_id, name, tokens, last, list(block_ids)))
        return True, {ASKED: name}

    # ----------------------------------------------------------------------------------------------- in the workers

    def register_kv_caches(self, kv_caches: dict[str, torch.Tensor]) -> None:
        """Find the states in the cache, and what the files say of them."""
        super().register_kv_caches(kv_caches)
        if get_tensor_model_parallel_rank() != 0:  # all ranks hold the same states
            return
        from transformers import AutoTokenizer

        (name,) = get_layers_from_vllm_config(self._config, CacheOnlyAttentionLayer, list(kv_caches))
        self._states = kv_caches[name]
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        before = self._config.speculative_config.draft_model_config.hf_config.eagle_aux_hidden_state_layer_ids
        model = self._config.model_config
        eos = AutoTokenizer.from_pretrained(model.tokenizer).eos_token_id
        self._about = {
            "layers": ",".join(str(layer - 1) for layer in before),  # vLLM counts the layer that reads the states
            "depth": str(model.hf_text_config.num_hidden_layers),
            "eos": "" if eos is None else str(eos),
        }

    def wait_for_save(self) -> None:
        """Do nothing; states are written when their request has finished."""

    def get_finished(self, finished_req_ids: set[str]) -> tuple[set[str] | None, set[str] | None]:  # noqa: ARG002
        """Write the states of finished requests, and return these, so that their memory is freed."""
        if self._states is None or not self.has_connector_metadata():
            return None, None
        metadata = self._get_connector_metadata()
        assert isinstance(metadata, _Metadata)
        for asked in metadata.asked:
            try:
                self._write(asked, self._states)
            except Exception:  # an error here would end the server; the client misses the file, and says so
                logger.exception("hidden states could not be written to %s", self._folder)
        return {asked.request for asked in metadata.asked} or None, None

    def _write(self, asked: _Asked, states: torch.Tensor) -> None:
        block = states.shape[2]
        at = torch.arange(asked.tokens - asked.last, asked.tokens)
        slots = torch.tensor(asked.blocks)[at // block] * block + at % block
        rows = extract_from_kv_cache(states, slots.to(states.device), asked.last)
        self._delete_unread()
        path = self._folder / f"{asked.name}.safetensors"
        unfinished = path.with_suffix(".unfinished")
        save_file({"states": rows.float().cpu().contiguous()}, unfinished, metadata=self._about)
        unfinished.replace(path)

    def _delete_unread(self) -> None:
        for old in self._folder.glob("*.safetensors"):
            try:
                if old.stat().st_mtime < time.time() - UNREAD_SECONDS:
                    old.unlink()
            except FileNotFoundError:  # its client has just deleted it
                continue
