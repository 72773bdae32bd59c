"""The base model in a server, and what is loaded of it locally."""

import pytest

from llamaindex_prag.serving.served_model import ServedModel
from rag_backbone.errors import ConfigurationError
from tests.tiny import tiny_folder


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


def test_without_the_model_its_weights_and_tokenizer_are_refused_with_the_argument_to_write(server, store, tmp_path):
    alone = ServedModel(server.url, store, recipe="prag", folder=tmp_path / "out").lm
    assert (alone.named, alone.loaded_with, alone.fingerprint, alone.context_window) == (False, None, store.model, 2048)
    for name in ("tokenizer", "local"):
        with pytest.raises(
            ConfigurationError, match=r"only the server's address is known: write ServedModel\(..., lm="
        ):
            getattr(alone, name)


@pytest.mark.parametrize("arguments", [False, True])
def test_a_folder_provides_the_tokenizer_and_how_to_load_the_model_again(server, lm, store, tmp_path, arguments):
    tiny_folder(tmp_path / "model")
    given = {"name": str(tmp_path / "model")} if arguments else tmp_path / "model"
    served = ServedModel(server.url, store, lm=given, recipe="prag", folder=tmp_path / "out").lm
    assert served.named
    assert served.loaded_with == (given if arguments else str(given))
    assert served.tokenizer("A river.").input_ids == lm.tokenizer("A river.").input_ids


def test_a_model_in_memory_is_the_local_one(served, lm, local):
    assert served.lm.tokenizer is lm.tokenizer
    assert served.lm.local is local
    assert served.lm.loaded_with == lm.loaded_with
    assert repr(served.lm) == "ServedLM('base')"
