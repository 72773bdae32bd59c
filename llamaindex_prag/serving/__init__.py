"""Documents' adapters in a model server (vLLM): merged, exported, loaded by name; or merged by the server itself.

    selection -> merged adapter -> PEFT folder named by its content -> loaded into the server -> a request's model name

`vllm_resolver` runs inside the server and needs neither torch nor LlamaIndex; the rest runs in its clients.
"""

from typing import TYPE_CHECKING

from rag_backbone._lazy import lazy_exports

if TYPE_CHECKING:
    from llamaindex_prag.serving.document_names import DocumentSet as DocumentSet
    from llamaindex_prag.serving.served_model import ServedModel as ServedModel

_EXPORTS = {"DocumentSet": "document_names", "ServedModel": "served_model"}

__all__ = ["DocumentSet", "ServedModel"]

__getattr__, __dir__ = lazy_exports(__name__, globals(), _EXPORTS)
