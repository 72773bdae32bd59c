"""A vLLM server that reads tokens and gives back hidden states, in files of a folder that both can see."""

from __future__ import annotations

import functools
import re
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from numpy.typing import NDArray

from rag_backbone.errors import ConfigurationError, SignalUnavailableError
from rag_backbone.openai_errors import failure_of
from rag_backbone.typed_fields import Bounds, check_value

if TYPE_CHECKING:
    from openai import OpenAI

_ASKED = "dynprag_states"  # as in vllm_hidden_states.py, which runs inside vLLM
_NAME = re.compile(r"[0-9a-f]{32}")
_COMMAND = "see 'Hidden states' in docs/vllm.md for the command that starts one"


class HiddenStateServer:
    """A vLLM server with the model of the chat server that writes hidden states to a folder.

    Give it as `ServerPolicy(states=...)`; then `seakr`, and hidden-state probes, work with a chat model in a server.

    Args:
        base_url: Its address, including `/v1`. On a GPU, it may be the chat server itself.
        folder: The folder into which it writes, as this process sees it; files are deleted when they have been read.
        model: Name of the model on the server. None: the first one that it lists.
        api_key: Its key, if it wants one.
        seconds: Longest wait for an answer, and for its file.

    Raises:
        ConfigurationError: If an argument is of another type or out of range, or there is no such folder.
    """

    def __init__(
        self,
        base_url: str,
        folder: str | Path,
        *,
        model: str | None = None,
        api_key: str = "none",
        seconds: float = 60.0,
    ) -> None:
        check_value("base_url", base_url, str)
        check_value("seconds", seconds, Annotated[float, Bounds(above=0)])
        self.base_url = base_url
        self.folder = Path(folder)
        self._model, self._key, self.seconds = model, api_key, seconds
        self._lock = threading.Lock()
        self._told: dict[str, str] | None = None
        if not self.folder.is_dir():
            raise ConfigurationError(f"folder is {str(folder)!r}, which does not exist here; {_COMMAND}")

    @property
    def eos(self) -> int:
        """Id of the model's end-of-sequence token.

        Raises:
            SignalUnavailableError: If its tokenizer has none.
        """
        if not (found := self._about()["eos"]):
            raise SignalUnavailableError(f"the tokenizer of {self.name} has no end-of-sequence token")
        return int(found)

    @property
    def depth(self) -> int:
        """Number of the model's layers."""
        return int(self._about()["depth"])

    @property
    def name(self) -> str:
        """Description for messages."""
        return f"the hidden-state server at {self.base_url}"

    def check(self) -> None:
        """Send a request unless one was answered before, so that a server that gives no states is found out early.

        Raises:
            ConfigurationError: If it answers, but gives no states, or writes them to another folder.
            ServerUnavailableError: If it cannot be reached.
            ServerError: If it refuses the request.
        """
        self._about()

    def _about(self) -> dict[str, str]:
        """Return what the server's files say of it: `layers`, `depth`, `eos`."""
        with self._lock:
            if self._told is None:
                self._told = self._read([0], 1)[1]
            return self._told

    def states(self, ids: Sequence[int], last: int, layers: Sequence[int]) -> NDArray[np.float32]:
        """Return the hidden states after some layers, at the last tokens of a sequence.

        Args:
            ids: The whole sequence.
            last: Number of tokens at its end.
            layers: Indices of the layers, from 0.

        Returns:
            The states, (layers, last, width).

        Raises:
            SignalUnavailableError: If the server was not started with one of the layers.
            ServerUnavailableError: If it cannot be reached.
            ServerError: If it refuses the request.
        """
        kept = [int(layer) for layer in self._about()["layers"].split(",")]
        if missing := [layer for layer in layers if layer not in kept]:
            wanted = ",".join(str(layer + 1) for layer in sorted({*kept, *missing}))
            raise SignalUnavailableError(
                f"{self.name} keeps the states after the layers {kept} (from 0, of {self.depth}), but "
                f"{missing} are needed; start it with eagle_aux_hidden_state_layer_ids [{wanted}]"
            )
        found = self._read(ids, last)[0]
        return np.stack([found[:, kept.index(layer)] for layer in layers])

    def _read(self, ids: Sequence[int], last: int) -> tuple[NDArray[np.float32], dict[str, str]]:
        from safetensors import safe_open

        path = self.folder / f"{self._asked(ids, last)}.safetensors"
        until = time.monotonic() + self.seconds
        while not path.exists():  # the answer comes before the file, which appears once it is complete
            if time.monotonic() > until:
                raise ConfigurationError(
                    f"{self.name} answered, but wrote no {path.name} to {self.folder} within {self.seconds:g} s; is "
                    "this folder the server's shared_storage_path? Its log says whether it could write there."
                )
            time.sleep(0.002)
        with safe_open(path, framework="np") as opened:
            states, about = opened.get_tensor("states"), dict(opened.metadata() or {})
        path.unlink(missing_ok=True)
        return states, about

    def _asked(self, ids: Sequence[int], last: int) -> str:
        """Send a sequence, and return the name of the file with its states."""
        extra = {"kv_transfer_params": {_ASKED: last}}
        try:
            reply: Any = self._client.completions.create(
                model=self._model_name, prompt=list(ids), max_tokens=1, temperature=0, extra_body=extra
            )
        except Exception as error:
            if (failure := failure_of(error)) is None:
                raise
            raise failure.explained(self.name) from error
        name = (getattr(reply, "kv_transfer_params", None) or {}).get(_ASKED)
        if not isinstance(name, str) or not _NAME.fullmatch(name):  # becomes part of a path
            raise ConfigurationError(f"{self.name} gives no hidden states; {_COMMAND}")
        return name

    @functools.cached_property
    def _client(self) -> OpenAI:
        from openai import OpenAI

        return OpenAI(base_url=self.base_url, api_key=self._key, timeout=self.seconds)

    @functools.cached_property
    def _model_name(self) -> str:
        if self._model is not None:
            return self._model
        listed = self._client.models.list().data
        if not listed:
            raise ConfigurationError(f"{self.name} lists no model; give its name: model=...")
        return listed[0].id

    def __repr__(self) -> str:
        return f"HiddenStateServer({self.base_url!r}, {str(self.folder)!r})"
