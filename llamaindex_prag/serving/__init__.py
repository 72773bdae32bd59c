"""Documents' adapters in a model server (vLLM): merged, exported, loaded by name; or merged by the server itself.

    selection -> merged adapter -> PEFT folder named by its content -> loaded into the server -> a request's model name

`vllm_resolver` runs inside the server and needs neither torch nor LlamaIndex; the rest runs in its clients.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
