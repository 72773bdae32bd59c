"""Serves documents' adapters from a model server (vLLM): merged and loaded by the client, or merged by the server.

    active adapters -> merged adapter -> PEFT folder named by content -> loaded into the server -> model name of a call

`vllm_resolver` runs inside the server and needs neither torch nor LlamaIndex; all other modules run in its clients.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
