"""The LLM backbone: load a causal language model, generate with token signals, cut text into units.

It imports no RAG framework and no package above it.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
