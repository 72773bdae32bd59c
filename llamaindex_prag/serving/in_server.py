"""What the models of all servers have in common."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llamaindex_prag.adapter_model import AdapterModel
from llamaindex_prag.adapters.source import MergeableStore
from llamaindex_prag.serving.model_server import ModelServer
from llamaindex_prag.serving.served_lm import ServedLM

if TYPE_CHECKING:
    from llamaindex_prag.parametric_model import ParametricModel


class ModelInServer(AdapterModel):
    """A model in a server, with the adapters of one store."""

    lm: ServedLM
    store: MergeableStore
    server: ModelServer
    """The server's client."""
    in_server = True

    @property
    def base_url(self) -> str:
        """The server's address."""
        return self.server.base_url

    @property
    def trainable(self) -> bool:
        """Whether adapters can be trained, which requires `lm`."""
        return self.lm.named

    @property
    def local(self) -> ParametricModel:
        """The same model in this process, loaded at first use, for training and measuring.

        Raises:
            ConfigurationError: If `lm` was not given.
        """
        return self.lm.local
