"""Parametric RAG: documents become LoRA adapters, and answers come from them."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
