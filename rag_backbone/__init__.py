"""The LLM backbone: load a causal language model, generate with token signals, split text into units.

It imports no RAG framework and no package above it.
"""

import lazy_loader

from rag_backbone.extras import naming_extras

_get, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
__getattr__ = naming_extras(__name__, _get)
