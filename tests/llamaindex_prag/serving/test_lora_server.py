"""The client of a server's LoRA API: adapters, token IDs, and errors that say what to do."""

import pytest

from llamaindex_prag.serving.served_model import ServedModel
from rag_backbone.errors import ServerError
from tests.llamaindex_prag.serving.conftest import both
from tests.openai_server import Fault


def test_a_folder_that_the_server_cannot_see_is_reported(server, lm, store, tmp_path):
    served = ServedModel(
        server.url, store, lm=lm, recipe="prag", folder=tmp_path / "out", server_folder="/mnt/elsewhere"
    )
    with pytest.raises(ServerError, match=r"finds no adapter at /mnt/elsewhere/prag-.*server_folder"):
        served.lm.engine.generate(both(served, lm, (0,)))


def test_the_error_of_a_server_without_runtime_loading_says_how_to_enable_it(served, server, lm):
    server.faults = [Fault(404, message="Not Found", path="/load_lora_adapter")]
    with pytest.raises(ServerError, match="VLLM_ALLOW_RUNTIME_LORA_UPDATING=True"):
        served.lm.engine.generate(both(served, lm, (0,)))
