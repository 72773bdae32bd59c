"""Where adapters are kept: content-addressed, crash-safe, memory-mapped; and PEFT folders in and out.

Needs neither torch nor a model.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
