"""The LLM backbone: load a causal language model, generate with token signals, split text into units.

It imports no RAG framework and no package above it.
"""

from typing import TYPE_CHECKING

from rag_backbone._lazy import lazy_exports

if TYPE_CHECKING:
    from rag_backbone.engine.adapters import AdapterBackend as AdapterBackend
    from rag_backbone.engine.adapters import AdapterSet as AdapterSet
    from rag_backbone.engine.adapters import PackedBackend as PackedBackend
    from rag_backbone.engine.engine import Engine as Engine
    from rag_backbone.engine.eos_states import EOSStates as EOSStates
    from rag_backbone.engine.eos_states import EOSStatesRequest as EOSStatesRequest
    from rag_backbone.engine.requests import Generation as Generation
    from rag_backbone.engine.requests import Request as Request
    from rag_backbone.engine.sampling import Sampling as Sampling
    from rag_backbone.engine.signals import Signals as Signals
    from rag_backbone.engine.signals import TokenStep as TokenStep
    from rag_backbone.engine.stream import TokenStream as TokenStream
    from rag_backbone.errors import DynPragError as DynPragError
    from rag_backbone.loading.causal_lm import CausalLM as CausalLM

_EXPORTS = {
    "AdapterBackend": "engine.adapters",
    "AdapterSet": "engine.adapters",
    "CausalLM": "loading.causal_lm",
    "DynPragError": "errors",
    "EOSStates": "engine.eos_states",
    "EOSStatesRequest": "engine.eos_states",
    "Engine": "engine.engine",
    "Generation": "engine.requests",
    "PackedBackend": "engine.adapters",
    "Request": "engine.requests",
    "Sampling": "engine.sampling",
    "Signals": "engine.signals",
    "TokenStep": "engine.signals",
    "TokenStream": "engine.stream",
}

__all__ = [
    "AdapterBackend",
    "AdapterSet",
    "CausalLM",
    "DynPragError",
    "EOSStates",
    "EOSStatesRequest",
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
