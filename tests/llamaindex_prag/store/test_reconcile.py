"""Adapters that indexes no longer need: the decision for each document, and `dynprag store gc`."""

import json
from pathlib import Path

import pytest
from llama_index.core import Document, StorageContext, VectorStoreIndex
from llama_index.core.embeddings import MockEmbedding
from typer.testing import CliRunner

from llamaindex_prag.adapters.adapter import text_hash
from llamaindex_prag.store.reconcile import IndexContents, left_behind, reconcile
from rag_backbone.cli import build_app
from rag_backbone.errors import ConfigurationError
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


def index(*ids, **documents):
    found = {name: None if texts is None else frozenset(map(text_hash, texts)) for name, texts in documents.items()}
    return IndexContents(name="the index", documents=found, ids=ids)


def owned(store, **documents):
    for name, texts in documents.items():
        for text in texts:
            store.put(made_key(text), made_adapter(), {}, owners=[name])


def test_parts_of_a_document_have_the_texts_of_the_document():
    found = IndexContents(name="x", documents={"a.md": None, "b.md": frozenset({"t"})}, parts=True)
    assert (found.texts("a.md#1"), found.texts("b.md#x#2"), found.texts("c.md#1")) == (None, frozenset(), frozenset())
    assert found.texts("b.md#2") == frozenset({"t"})
    assert index(a=["one"]).texts("a#1") == frozenset()


def test_a_document_loses_only_the_texts_that_the_index_no_longer_has(store):
    owned(store, a=["one", "two"], b=["two"])
    would = reconcile(store, [index(a=["one"], b=None)], dry_run=True)
    assert dict(would.documents) == {"a": [text_hash("two")]}
    assert list(would.removed_texts) == []  # the other document uses the text too
    assert reconcile(store, [index(a=["one"], b=None)]).documents == would.documents
    assert store.texts("a") == [text_hash("one")]
    assert set(store.keys()) == {made_key("one"), made_key("two")}


def test_only_documents_that_the_index_once_held_and_no_other_holds_are_removed(store):
    owned(store, held=["one"], shared=["two"], unknown=["three"], left=["four"])
    store.hold("i", ["held", "shared", "left"])
    store.hold("j", ["shared"])
    found = reconcile(store, [index("i", left=["four"])])
    assert list(found.removed_texts) == [text_hash("one")]
    assert found.kept == {"shared": "another index holds it: j", "unknown": "no index is known to hold it"}
    assert str(found) == "adapters of 1 texts removed, of 1 documents; 2 documents stay that are in no named index"


def test_documents_with_texts_that_the_index_lost_are_left_behind(store):
    owned(store, gone=["one"], changed=["two"], same=["three"], other=["four"])
    store.hold("i", ["gone", "changed", "same"])
    assert left_behind(store, index("i", changed=["new"], same=["three"])) == ["changed", "gone"]
    assert left_behind(store, index(changed=["new"])) == []


def test_nothing_is_compared_without_an_index(store):
    with pytest.raises(ConfigurationError, match="no index was given"):
        reconcile(store, [])
