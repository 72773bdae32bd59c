"""The client of a server's LoRA API: adapters, token IDs, and errors that say what to do."""

import pytest

from llamaindex_prag.serving.lora_server import LoraServer
from llamaindex_prag.serving.served_model import ServedModel
from llamaindex_prag.store.peft_folder import export_peft
from rag_backbone.errors import ConfigurationError, ServerError, ServerUnavailableError
from tests.llamaindex_prag.serving.conftest import TEXTS, both
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


@pytest.fixture
def client(server):
    return LoraServer(f"{server.url}/")


@pytest.fixture
def folder(local, store, tmp_path):
    return export_peft(store.get(local.key(TEXTS[0])), tmp_path / "adapter", base_model_name="base")


def test_loading_and_unloading_twice_changes_nothing(client, server, folder):
    for _ in range(2):
        client.load("prag-1", folder)
        assert client.adapters() == {"prag-1": str(folder)}
    for _ in range(2):
        client.unload("prag-1")
        assert client.adapters() == {}
    assert [model.id for model in client.models()] == ["base"]
    assert len(server.asked("/load_lora_adapter")) == 2


def test_token_ids_come_from_the_server_and_are_none_if_it_has_no_such_endpoint(client, server, lm):
    text = "The keeper wrote a letter."
    assert client.tokenised(text) == lm.tokenizer(text, add_special_tokens=False).input_ids
    server.faults = [Fault(404, message="Not Found", path="/tokenize")]
    assert client.tokenised(text) is None


def test_a_server_that_does_not_answer_is_named(client, server):
    server.stop()
    for call in (client.models, lambda: client.load("a", "/tmp/a"), lambda: client.unload("a")):
        with pytest.raises(ServerUnavailableError, match=f"the server at {server.url}"):
            call()


def test_errors_that_a_server_cannot_cause_are_returned_as_they_are(client):
    error = MemoryError("none left")
    assert client.explained(error) is error


@pytest.mark.parametrize("address", ["", "localhost:8000/v1", "ftp://host/v1", "http:///v1", "http://host:99999/v1"])
def test_a_malformed_address_is_refused(address):
    with pytest.raises(ConfigurationError, match=f"the server's address is '{address}'; one with http:// or https://"):
        LoraServer(address)


@pytest.mark.parametrize("address", ["http://me:much-too-open@host/v1", "me:much-too-open@host:80/v1"])
def test_a_password_in_the_address_is_refused_and_not_repeated(address):
    with pytest.raises(ConfigurationError, match="holds a user or a password; leave them out") as caught:
        LoraServer(address)
    assert "much-too-open" not in str(caught.value)


def test_an_address_without_v1_is_named_as_a_possible_cause(client, server):
    server.faults = [Fault(404, message="Not Found", path="/models")]
    with pytest.raises(ServerError, match=f"the server at {server.url} has no /models; does the address end in /v1"):
        client.models()


@pytest.mark.parametrize("key", ["much-too-open\n", "much-too-öpen"])
def test_a_key_that_cannot_be_sent_is_refused_and_not_repeated(server, key):
    with pytest.raises(ConfigurationError, match="the API key for the server at .* not printable ASCII") as caught:
        LoraServer(server.url, api_key=key).models()
    assert "much" not in str(caught.value)


def test_a_server_without_a_model_is_named(server, store):
    server.faults = [
        Fault(body='{"object": "list", "data": []}', path="/models", headers={"Content-Type": "application/json"})
    ]
    with pytest.raises(ConfigurationError, match="lists no model; start it with one"):
        ServedModel(server.url, store)
