"""The base model in a server, and what is loaded of it locally."""

import pytest

from llamaindex_prag.serving.served_model import ServedModel
from rag_backbone.errors import ConfigurationError


def test_a_tokenizer_that_differs_from_the_servers_is_rejected(server, lm, store, tmp_path):
    server.tokenizer = lambda text, **_: type("E", (), {"input_ids": [1, 2, 3]})()
    served = ServedModel(server.url, store, lm=lm, recipe="prag", folder=tmp_path / "out")
    with pytest.raises(ConfigurationError, match="has another tokenizer than lm"):
        _ = served.lm.tokenizer


def test_a_store_of_another_model_is_rejected(server, lm, tmp_path):
    from llamaindex_prag.store.lmdb_store import LMDBStore

    with (
        LMDBStore(tmp_path / "other", model="f" * 64, map_size=1 << 22) as other,
        pytest.raises(ConfigurationError, match="Use the model that they were trained on"),
    ):
        ServedModel(server.url, other, lm=lm)
