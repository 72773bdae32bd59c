"""Adapters are loaded once, again if the server has lost them, and the least recently used ones are unloaded."""

from llamaindex_prag.adapters.adapter import AdapterKey
from llamaindex_prag.serving.loaded import LoadedAdapters
from llamaindex_prag.serving.served_model import ServedModel
from tests.llamaindex_prag.serving.conftest import both, request_name


def test_an_adapter_is_loaded_once_and_the_least_recently_used_one_is_unloaded(served, server, lm):
    for i in (0, 0, 1, 0, 2):  # two stay loaded
        served.lm.engine.generate(both(served, lm, (i,)))
    loads = [body["lora_name"] for body in server.asked("/load_lora_adapter")]
    assert len(loads) == len(set(loads)) == 3
    assert [body["lora_name"] for body in server.asked("/unload_lora_adapter")] == [loads[1]]
    assert set(server.adapters) == {loads[0], loads[2]}
    assert (served._loaded._folders.root / loads[1]).is_dir()  # within its grace period


def test_an_adapter_unloaded_by_another_client_is_loaded_again(served, server, lm):
    request = both(served, lm, (0, 1))
    before = served.lm.engine.generate(request)
    server.adapters.clear()
    assert served.lm.engine.generate(request).token_ids == before.token_ids
    assert len(server.asked("/load_lora_adapter")) == 2


def test_a_deleted_folder_is_written_again(served, server, lm):
    import shutil

    request = both(served, lm, (0,))
    before = served.lm.engine.generate(request)
    server.adapters.clear()
    shutil.rmtree(served._loaded._folders.root / request_name(served, request))
    assert served.lm.engine.generate(request).token_ids == before.token_ids


def test_two_clients_with_separate_folders_can_share_one_server(served, server, lm, store, tmp_path):
    other = ServedModel(server.url, store, lm=lm, recipe="prag", max_adapters=3, folder=tmp_path / "two", keep=2)
    request = both(served, lm, (0,))
    whole = lm.engine.generate(request).token_ids
    assert served.lm.engine.generate(request).token_ids == whole
    assert other.lm.engine.generate(request).token_ids == whole  # the name is loaded already
    for i in (1, 2, 3):  # the first client unloads the adapter of the request
        served.lm.engine.generate(both(served, lm, (i,)))
    assert other.lm.engine.generate(request).token_ids == whole


def test_the_repr_of_loaded_adapters_shows_their_number_and_server(served, lm):
    served.lm.engine.generate(both(served, lm, (0,)))
    assert isinstance(served._loaded, LoadedAdapters)
    assert repr(served._loaded).startswith("LoadedAdapters(1 of 2 in LoraServer('http://127")
    assert AdapterKey(served.store.model, served.recipe.key, "0" * 64) not in served.store
