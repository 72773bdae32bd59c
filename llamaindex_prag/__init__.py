"""Parametric RAG: documents become LoRA adapters, and answers come from them."""

import lazy_loader

from rag_backbone.extras import naming_extras

_get, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
__getattr__ = naming_extras(__name__, _get)
