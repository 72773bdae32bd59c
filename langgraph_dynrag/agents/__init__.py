"""Add dynamic retrieval to existing agents, as a middleware or as tools. Requires `langchain`."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
