"""A shared store behind a model, an LLM, the command line and a model server."""

import json

import pytest
from typer.testing import CliRunner

from llamaindex_prag import ParametricLLM
from llamaindex_prag.adapters.active_adapters import ActiveAdapters
from llamaindex_prag.adapters.adapter import Adapter
from llamaindex_prag.errors import AdapterMissingError
from llamaindex_prag.parametric_model import ParametricModel
from llamaindex_prag.serving import vllm_resolver
from llamaindex_prag.serving.document_names import DocumentSet
from rag_backbone.cli import build_app
from rag_backbone.loading.causal_lm import CausalLM
from tests.llamaindex_prag.made import random_values
from tests.tiny import tiny_folder, tiny_llama, tiny_tokenizer

TEXTS = ["The bridge was built by Aldous Wray.", "The ferry sails at noon."]


@pytest.fixture
def lm():
    return CausalLM(tiny_llama(), tiny_tokenizer(), name="tiny")


def filled(lm, hosts):
    store = hosts(model=lm.fingerprint)
    model = ParametricModel.of(lm, store, recipe="prag", max_adapters=2)
    for seed, text in enumerate(TEXTS):
        store.put(
            model.key(text), Adapter(model.layout, random_values(model.layout, seed), 2.0), {}, owners=[f"d{seed}"]
        )
    return model


def test_a_model_stops_answering_from_a_document_that_another_host_removed(lm, hosts):
    model = filled(lm, hosts)
    ask = {"question": "Who?", "max_new_tokens": 8}
    both, first = model.answer(documents=TEXTS, **ask), model.answer(documents=TEXTS[:1], **ask)
    assert model.answer(documents=[], **ask) not in (both, first)
    with hosts(model=None) as other:
        assert other.remove_document("d1") == [model.key(TEXTS[1]).text]
    with pytest.raises(AdapterMissingError, match="train"):
        model.answer(documents=TEXTS, **ask)
    assert model.answer(documents=TEXTS[:1], **ask) == first


def test_a_server_reads_from_a_shared_store(lm, hosts, tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("DYNPRAG_CACHE", str(tmp_path / "home"))
    model = filled(lm, hosts)
    folders = vllm_resolver.MergedFolders(tmp_path / "out", limit=1e9)
    opened = vllm_resolver.opened(model.store.url)
    opened.removal_delay = 0.0
    resolver = vllm_resolver.DocumentResolver(lambda: opened, lambda: folders)
    name = DocumentSet.of(ActiveAdapters.of([model.key(text) for text in TEXTS], merge="sum")).name()
    assert (resolver.folder_of("base", name) / "adapter_model.safetensors").is_file()
    model.store.remove_document("d0")
    assert resolver.folder_of("base", name) is None
    assert "no adapter of text" in caplog.text


def test_an_llm_is_loaded_again_with_its_shared_store(tmp_path, monkeypatch):
    monkeypatch.setenv("DYNPRAG_CACHE", str(tmp_path / "home"))
    folder = tiny_folder(tmp_path / "model")
    llm = ParametricLLM(lm=str(folder), store=f"file://{tmp_path}/store", recipe="prag")
    again = ParametricLLM.from_dict(json.loads(json.dumps(llm.to_dict())))
    assert again.model.store.url == llm.model.store.url == f"file://{tmp_path}/store"


def test_the_command_line_takes_the_url_of_a_store(lm, hosts, tmp_path, monkeypatch):
    monkeypatch.setenv("DYNPRAG_CACHE", str(tmp_path / "home"))
    model = filled(lm, hosts)

    def run(*arguments):
        result = CliRunner().invoke(build_app(), ["store", *arguments, "--store", model.store.url])
        assert result.exit_code == 0, (result.output, result.exception)
        return result.stdout

    assert [entry["documents"] for entry in json.loads(run("list", "--json"))] == [["d0"], ["d1"]]
    run("remove", "d0")
    assert len(model.store) == 1
    assert "removed less than 3600 s ago" in run("gc")
    assert json.loads(run("verify", "--json"))["checked"] == 1
