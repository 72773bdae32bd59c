"""Fixtures: a tiny model, an empty store of its adapters, and the command line on a model in a folder."""

import pytest
from typer.testing import CliRunner

from llamaindex_prag.store.lmdb_store import LMDBStore
from rag_backbone.cli import build_app
from rag_backbone.loading.causal_lm import CausalLM
from tests.tiny import tiny_folder, tiny_llama, tiny_tokenizer


@pytest.fixture
def lm():
    return CausalLM(tiny_llama(), tiny_tokenizer(), name="tiny")


@pytest.fixture
def store(lm, tmp_path):
    with LMDBStore(tmp_path / "store", model=lm.fingerprint, encoding="float32", map_size=1 << 26) as opened:
        yield opened


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory):
    return tiny_folder(tmp_path_factory.mktemp("model"))


@pytest.fixture
def run(tmp_path, model_folder):
    def call(*arguments, code=0):
        extra = ["--store", str(tmp_path / "store")]
        if arguments[0] == "parametrize":
            extra += ["--model", str(model_folder), "--recipe", "prag"]
        result = CliRunner().invoke(build_app(), [*map(str, arguments), *extra])
        assert result.exit_code == code, (result.output, result.exception)
        return result.stdout

    return call
