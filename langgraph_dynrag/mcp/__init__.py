"""The index and the dynamic answer as tools of a server for the Model Context Protocol. Requires `mcp`."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
