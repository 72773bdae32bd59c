"""The LLM backbone: load a causal language model, generate with token signals, cut text into units.

It imports no RAG framework and no package above it.
"""

from typing import TYPE_CHECKING

from rag_backbone._lazy import lazy_exports

if TYPE_CHECKING:
    from rag_backbone.adapters import AdapterBackend as AdapterBackend
    from rag_backbone.adapters import AdapterSet as AdapterSet
    from rag_backbone.adapters import PackedBackend as PackedBackend
    from rag_backbone.causal_lm import CausalLM as CausalLM
    from rag_backbone.end_states import EndStates as EndStates
    from rag_backbone.end_states import EndStatesRequest as EndStatesRequest
    from rag_backbone.engine import Engine as Engine
    from rag_backbone.errors import DynPragError as DynPragError
    from rag_backbone.requests import Generation as Generation
    from rag_backbone.requests import Request as Request
    from rag_backbone.sampling import Sampling as Sampling
    from rag_backbone.signals import Signals as Signals
    from rag_backbone.signals import TokenStep as TokenStep
    from rag_backbone.stream import TokenStream as TokenStream

_EXPORTS = {
    "AdapterBackend": "adapters",
    "AdapterSet": "adapters",
    "CausalLM": "causal_lm",
    "DynPragError": "errors",
    "EndStates": "end_states",
    "EndStatesRequest": "end_states",
    "Engine": "engine",
    "Generation": "requests",
    "PackedBackend": "adapters",
    "Request": "requests",
    "Sampling": "sampling",
    "Signals": "signals",
    "TokenStep": "signals",
    "TokenStream": "stream",
}

__all__ = [
    "AdapterBackend",
    "AdapterSet",
    "CausalLM",
    "DynPragError",
    "EndStates",
    "EndStatesRequest",
    "Engine",
    "Generation",
    "PackedBackend",
    "Request",
    "Sampling",
    "Signals",
    "TokenStep",
    "TokenStream",
]

__getattr__, __dir__ = lazy_exports(__name__, globals(), _EXPORTS)
