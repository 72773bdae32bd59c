"""An index whose texts and vectors are in a real Chroma server."""

import asyncio
import copy
import shutil

import chromadb
import pytest
from langchain_core.embeddings import DeterministicFakeEmbedding

from langgraph_dynrag.retrieval import LocalIndex, Splitter
from rag_backbone.errors import ConfigurationError, IndexServerError
from tests.langgraph_dynrag.retrieval.chroma_servers import ChromaProcess
from tests.langgraph_dynrag.retrieval.indexes import CountedEmbeddings, all_texts, loaded, texts


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    started = ChromaProcess(tmp_path_factory.mktemp("chroma")).start()
    yield started
    started.stop()


@pytest.fixture
def own_server(tmp_path):
    """A server that a test may stop."""
    started = ChromaProcess(tmp_path / "chroma").start()
    yield started
    started.stop()


@pytest.fixture
def client(server):
    client = server.client()
    for collection in client.list_collections():
        client.delete_collection(collection.name)
    return client


def make(folder, client, size=8, **options):
    return LocalIndex(folder, embeddings=CountedEmbeddings(size=size), client=client, **options)


# ------------------------------------------------------------------------------------------------- the same as a folder


def test_texts_and_vectors_are_in_the_server_and_the_manifest_in_the_folder(tmp_path, folder, client):
    index = make(tmp_path / "index", client, collection="notes")
    report = index.ingest(folder, progress=False)
    assert (report.added, report.embedded, report.chunks) == (3, 4, 4)
    assert client.get_collection("notes").count() == 4
    assert {p.name for p in index.folder.iterdir()} <= {"manifest.json", "ingest.lock"}
    assert "the collection 'notes' of the Chroma server at 127.0.0.1:" in repr(index)
    assert not any("Tamsin" in p.read_text() for p in index.folder.iterdir())


def test_every_kind_of_retriever_finds_the_same_as_in_a_folder(tmp_path, folder, client):
    local = LocalIndex(tmp_path / "local", embeddings=CountedEmbeddings(size=8))
    served = make(tmp_path / "served", client)
    for index in (local, served):
        index.ingest(folder, progress=False)
        index.add_documents(loaded())
    for kind in ("dense", "bm25", "hybrid"):
        found = [index.as_retriever(kind, k=3).invoke("Who crosses the Tamsin?") for index in (local, served)]
        assert [d.id for d in found[0]] == [d.id for d in found[1]], kind
        for a, b in zip(*found, strict=True):
            assert a.metadata.pop("score") == pytest.approx(b.metadata.pop("score"), abs=1e-5)
            assert a == b


def test_changes_and_removals_are_followed(tmp_path, folder, client):
    index = make(tmp_path / "index", client)
    index.ingest(folder, progress=False)
    retriever = make(tmp_path / "index", client).as_retriever("dense", k=50)  # as in another process
    (folder / "river.txt").unlink()
    (folder / "bees.txt").write_text("Ida Lund keeps bees.")
    report = index.ingest(folder, progress=False)
    assert (report.added, report.removed, report.unchanged, report.embedded) == (1, 1, 2, 1)
    found = {d.page_content for d in retriever.invoke("bees")}
    assert "Ida Lund keeps bees." in found
    assert "The river Tamsin crosses Brannoch." not in found
    assert client.get_collection("documents").count() == len(index) == 4


def test_a_replaced_document_keeps_nothing_of_the_old_metadata(tmp_path, client):
    index = make(tmp_path / "index", client)
    index.add_texts(["Sails on Sundays."], [{"page": 1, "tags": ["old"]}], ids=["t"], source="timetable")
    index.add_texts(["Sails daily."], [{"page": 2}], ids=["t"], source="timetable")
    [found] = index.as_retriever("dense").invoke("when?")
    assert found.page_content == "Sails daily."
    assert {"page": 2}.items() <= found.metadata.items()
    assert "tags" not in found.metadata


def test_documents_are_added_and_searched_without_blocking_the_event_loop(tmp_path, client):
    async def main():
        index = make(tmp_path / "index", client)
        report = await index.aadd_documents(loaded())
        found = await asyncio.gather(*(index.as_retriever(kind, k=9).ainvoke("bees") for kind in ("dense", "hybrid")))
        return report.chunks, [len(f) for f in found]

    assert asyncio.run(main()) == (3, [3, 3])


def test_several_indexes_have_collections_of_their_own(tmp_path, folder, client):
    first = make(tmp_path / "first", client, collection="first")
    first.ingest(folder, progress=False)
    second = make(tmp_path / "second", client, collection="second")
    second.add_texts(["Ida Lund keeps bees."])
    assert texts(second) == {"Ida Lund keeps bees."}
    assert len(texts(first)) == 4


# -------------------------------------------------------------------------------------------------------- whose it is


def test_a_collection_of_another_index_is_neither_changed_nor_searched(tmp_path, folder, client):
    make(tmp_path / "index", client).ingest(folder, progress=False)
    other = make(tmp_path / "other", client)
    with pytest.raises(ConfigurationError, match="belongs to an index in another folder, with vectors of Counted"):
        other.add_texts(["Ida Lund keeps bees."])
    assert not (tmp_path / "other" / "manifest.json").exists()
    assert client.get_collection("documents").count() == 4
    # A folder whose collection was replaced by that of another index.
    client.delete_collection("documents")
    make(tmp_path / "third", client).add_texts(["Ida Lund keeps bees."])
    with pytest.raises(ConfigurationError, match="belongs to an index in another folder"):
        texts(make(tmp_path / "index", client))


def test_a_collection_that_something_else_created_is_refused(tmp_path, client):
    client.create_collection("documents", embedding_function=None).add(ids=["a"], embeddings=[[1.0]], documents=["x"])
    with pytest.raises(ConfigurationError, match=r"was not created by LocalIndex; .* another collection="):
        make(tmp_path / "index", client).add_texts(["Ida Lund keeps bees."])
    assert client.get_collection("documents").count() == 1


def test_a_copy_of_the_folder_searches_and_cannot_undo_later_changes(tmp_path, folder, client):
    index = make(tmp_path / "index", client)
    index.ingest(folder, progress=False)
    shutil.copytree(tmp_path / "index", tmp_path / "copy")
    copied = make(tmp_path / "copy", client)
    assert texts(copied) == texts(index)
    index.add_texts(["Ida Lund keeps bees."])
    with pytest.raises(ConfigurationError, match="was changed from another copy of the folder"):
        copied.ingest(folder, progress=False)
    assert "Ida Lund keeps bees." in texts(index)


def test_an_index_is_opened_where_its_vectors_are(tmp_path, client):
    make(tmp_path / "served", client, collection="one").add_texts(["x"])
    for wrong in ({}, {"client": client, "collection": "two"}):
        index = LocalIndex(tmp_path / "served", embeddings=CountedEmbeddings(size=8), **wrong)
        with pytest.raises(ConfigurationError, match=r"are in the collection 'one' of a Chroma server; open it with"):
            index.as_retriever()
        assert repr(index).endswith("ConfigurationError)")
    LocalIndex(tmp_path / "local", embeddings=CountedEmbeddings(size=8)).add_texts(["x"])
    with pytest.raises(ConfigurationError, match="has its vectors in the folder itself"):
        make(tmp_path / "local", client).add_texts(["y"])


@pytest.mark.parametrize("client", [chromadb.AsyncHttpClient, "http://localhost:8000"])
def test_only_a_synchronous_client_is_accepted(tmp_path, client):
    with pytest.raises(ConfigurationError, match=r"pass a synchronous client of Chroma"):
        LocalIndex(tmp_path, client=_AsyncClient() if callable(client) else client)


class _AsyncClient:
    get_or_create_collection = chromadb.api.async_client.AsyncClient.get_or_create_collection


def test_a_copy_of_the_index_object_is_refused_with_the_reason(tmp_path, client):
    with pytest.raises(TypeError, match="cannot be copied or pickled with its connection"):
        copy.deepcopy(make(tmp_path / "index", client))


# --------------------------------------------------------------------------------------------------- other embeddings


def test_other_embeddings_are_named_and_embed_everything_again(tmp_path, folder, client, caplog):
    make(tmp_path / "index", client).ingest(folder, progress=False)
    wide = LocalIndex(tmp_path / "index", embeddings=DeterministicFakeEmbedding(size=5), client=client)
    with pytest.raises(ConfigurationError, match="dimension.* vectors of other embeddings than these"):
        texts(wide)
    assert "were computed with CountedEmbeddings" in caplog.text
    report = wide.ingest(folder, progress=False)
    assert (report.embedded, report.chunks, len(texts(wide))) == (4, 4, 4)


# ------------------------------------------------------------------------------------------------- a server that fails


class Stopping(CountedEmbeddings):
    """Stops the server when it is asked to embed a text with a certain word, and counts what it embedded before."""

    word: str
    server: object

    def embed_documents(self, texts):
        if any(self.word in text for text in texts):
            self.server.stop()
        return super().embed_documents(texts)


def test_an_ingestion_that_loses_the_connection_is_completed_by_the_next(tmp_path, folder, own_server):
    client = own_server.client()

    def opened(word):
        stopping = Stopping(size=8, word=word, server=own_server)
        return LocalIndex(tmp_path / "index", embeddings=stopping, client=client)

    index = opened("Tamsin")
    with pytest.raises(IndexServerError, match=r"127\.0\.0\.1:\d+ cannot be written: the server does not answer"):
        index.ingest(folder, progress=False)
    assert len(index) < 4  # the manifest names only what was stored
    stored = len(index)
    assert stored > 0
    own_server.start()
    again = opened("nothing")
    assert len(texts(again)) == stored  # what was finished is found before the rest is there
    report = again.ingest(folder, progress=False)
    assert (report.chunks, report.embedded) == (4, 4 - stored)
    assert len(texts(again)) == client.get_collection("documents").count() == 4
    assert not (tmp_path / "index" / "unfinished").exists()


def test_embedding_again_survives_a_lost_connection(tmp_path, own_server):
    client = own_server.client()
    make(tmp_path / "index", client).add_texts([f"Text {i}." for i in range(70)], ids=[str(i) for i in range(70)])
    other = {"embeddings": _Other(size=5, word="Text 69.", server=own_server), "client": client}
    with pytest.raises(IndexServerError):
        LocalIndex(tmp_path / "index", **other).add_texts(["More."])
    own_server.start()
    other["embeddings"] = _Other(size=5, word="nothing", server=own_server)
    index = LocalIndex(tmp_path / "index", **other)
    assert index.add_texts(["More."]).chunks == 71
    assert len(texts(index, k=100)) == 71


class _Other(Stopping):
    """Embeddings of another name."""


def test_a_server_that_stops_and_starts_again_is_searched_again(tmp_path, folder, own_server):
    index = make(tmp_path / "index", own_server.client(), splitter=Splitter(200, 0))
    index.ingest(folder, progress=False)
    before = all_texts(index)
    own_server.stop()
    with pytest.raises(IndexServerError, match="cannot be read: the server does not answer"):
        texts(index)
    with pytest.raises(IndexServerError, match="cannot be opened: the server does not answer"):
        index.add_texts(["Ida Lund keeps bees."])
    own_server.start()
    assert all_texts(index) == before


def test_a_collection_that_was_deleted_is_an_error_until_its_documents_are_ingested_again(tmp_path, folder, client):
    index = make(tmp_path / "index", client)
    index.ingest(folder, progress=False)
    client.delete_collection("documents")
    with pytest.raises(IndexServerError, match="does not exist; ingest the documents of .* again"):
        texts(index)
    report = index.ingest(folder, progress=False)
    assert (report.embedded, report.chunks, len(texts(index))) == (4, 4, 4)


def test_what_else_the_server_refuses_is_quoted_with_both_versions_before_anything_is_embedded(tmp_path, client):
    refused = make(tmp_path / "index", client, collection="x")
    with pytest.raises(IndexServerError, match=r"name.*the client is chromadb [\d.]+, the server reports [\d.]+"):
        refused.add_texts(["Ida Lund keeps bees."])
    assert refused.embeddings.texts == []
    assert make(tmp_path / "index", client, collection="bees").add_texts(["Ida Lund keeps bees."]).chunks == 1
