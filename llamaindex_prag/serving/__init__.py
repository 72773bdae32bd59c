"""Serves documents' adapters from a model server.

    vLLM        active adapters -> merged, in a PEFT folder named by content -> loaded into the server -> model name
    llama.cpp   active adapters -> a GGUF file for each, named by content -> loaded into the server -> their scales

In vLLM, the client merges and loads them, or the server itself merges those that a model name stands for.

`vllm_resolver` runs inside the server and needs neither torch nor LlamaIndex; all other modules run in its clients.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
