"""Dynamic retrieval in agents that one has already: a middleware, and tools. Needs `langchain`."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
