"""`dynprag store gc`: against indexes, as a dry run, and what it refuses."""

import json
from pathlib import Path

import pytest
from llama_index.core import Document, StorageContext, VectorStoreIndex
from llama_index.core.embeddings import MockEmbedding
from typer.testing import CliRunner

from rag_backbone.cli import build_app
from tests.llamaindex_prag.store.made import made_adapter, made_key, opened


@pytest.fixture
def run(tmp_path):
    def call(*arguments, code=0):
        result = CliRunner().invoke(build_app(), [*map(str, arguments), "--store", str(tmp_path / "store")])
        assert result.exit_code == code, (result.output, result.exception)
        return result.stdout

    return call


@pytest.fixture
def parametrized(tmp_path):
    """A folder of two files with adapters, named as by `dynprag parametrize`."""
    with opened(tmp_path / "store") as store:
        for name in ("ferry.txt", "mill.txt"):
            store.put(made_key(name), made_adapter(), {}, owners=[(tmp_path / "notes" / name).as_posix()])
    return tmp_path / "notes"


def local_index(folder, *files, root):
    """Write the parts of a `LocalIndex` folder's manifest that are read."""
    folder.mkdir(exist_ok=True)
    entries = {str(file): {"root": str(root), "chunks": ["c"]} for file in files}
    content = {"version": 2, "embeddings": None, "files": entries, "documents": {}}
    (folder / "manifest.json").write_text(json.dumps(content))
    return folder


def test_gc_against_the_only_local_index_removes_what_it_no_longer_has(run, parametrized, tmp_path):
    index = local_index(tmp_path / "index", parametrized / "ferry.txt", root=parametrized)
    mill = (parametrized / "mill.txt").as_posix()
    told = json.loads(run("store", "gc", "--against", index, "--json"))
    assert (told["removed_texts"], told["kept"]) == ([], {mill: "no index is known to hold it"})
    assert f"{mill} stays" in run("store", "gc", "--against", index)
    would = json.loads(run("store", "gc", "--against", index, "--only", "--dry-run", "--json"))
    assert list(would["documents"]) == [mill]
    assert json.loads(run("store", "stats", "--json"))["adapters"] == 2
    done = run("store", "gc", "--against", index, "--only")
    assert f"{mill} lost" in done
    assert "compacted: True" in done
    assert [Path(a["documents"][0]).name for a in json.loads(run("store", "list", "--json"))] == ["ferry.txt"]


def test_gc_refuses_folders_without_an_index_and_empty_indexes(run, parametrized, tmp_path):
    run("store", "gc", "--against", tmp_path / "none", code=1)
    run("store", "gc", "--against", parametrized, code=1)
    empty = local_index(tmp_path / "index", root=parametrized)
    run("store", "gc", "--against", empty, "--only", code=1)
    run("store", "gc", "--only", code=1)
    assert json.loads(run("store", "stats", "--json"))["adapters"] == 2
    run("store", "gc", "--against", empty, "--only", "--allow-empty")
    assert json.loads(run("store", "stats", "--json"))["adapters"] == 0


def test_gc_dry_run_reports_what_would_be_removed(run, parametrized, tmp_path):
    with opened(tmp_path / "store", model=None) as store:
        store.own((parametrized / "mill.txt").as_posix(), ())
    assert json.loads(run("store", "gc", "--dry-run", "--json"))["removed_adapters"] == 1
    assert json.loads(run("store", "stats", "--json"))["adapters"] == 2
    assert json.loads(run("store", "gc", "--json"))["removed_adapters"] == 1


def test_gc_against_an_index_that_llamaindex_persisted(run, parametrized, tmp_path):
    paths = [(parametrized / name) for name in ("ferry.txt", "mill.txt")]
    index = VectorStoreIndex.from_documents(
        [Document(text=path.name, id_=path.as_posix()) for path in paths],
        storage_context=StorageContext.from_defaults(),
        embed_model=MockEmbedding(8),
    )
    index.delete_ref_doc(paths[1].as_posix())
    index.storage_context.persist(str(tmp_path / "index"))
    told = json.loads(run("store", "gc", "--against", tmp_path / "index", "--only", "--json"))
    assert list(told["documents"]) == [paths[1].as_posix()]
    assert told["gc"]["compacted"]
    assert json.loads(run("store", "stats", "--json"))["adapters"] == 1
