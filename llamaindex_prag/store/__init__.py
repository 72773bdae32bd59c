"""Adapter storage: content-addressed, crash-safe and memory-mapped, with import and export of PEFT folders.

Needs neither torch nor a model.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
