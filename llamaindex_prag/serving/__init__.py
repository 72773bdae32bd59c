"""Serves documents' adapters from a model server (vLLM): merged and loaded by the client, or merged by the server.

    active adapters -> merged adapter -> PEFT folder named by content -> loaded into the server -> model name of a call

`vllm_resolver` runs inside the server and needs neither torch nor LlamaIndex; all other modules run in its clients.
"""

from typing import TYPE_CHECKING

from rag_backbone._lazy import lazy_exports

if TYPE_CHECKING:
    from llamaindex_prag.serving.document_names import DocumentSet as DocumentSet
    from llamaindex_prag.serving.served_model import ServedModel as ServedModel

_EXPORTS = {"DocumentSet": "document_names", "ServedModel": "served_model"}

__all__ = ["DocumentSet", "ServedModel"]

__getattr__, __dir__ = lazy_exports(__name__, globals(), _EXPORTS)
