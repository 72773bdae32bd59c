"""What an index in a folder contains, read from its manifest or from what LlamaIndex persisted."""

import json

import pytest
from llama_index.core.schema import NodeRelationship, RelatedNodeInfo, TextNode
from llama_index.core.storage.docstore import SimpleDocumentStore

from llamaindex_prag.adapters.adapter import text_hash
from llamaindex_prag.index_folders import folder_contents
from rag_backbone.errors import ConfigurationError


def manifest(folder, content):
    (folder / "manifest.json").write_text(json.dumps(content))
    return folder


def test_the_documents_of_a_local_index_go_by_their_paths_names_and_sources(tmp_path):
    files = {
        "/notes/mills/a.md": {"root": "/notes", "chunks": ["c"]},
        "/notes/b.md": {"root": "/notes/b.md", "chunks": ["c"]},  # the file itself was indexed
        "/moved/c.md": {"root": "/notes", "chunks": ["c"]},
        "/notes/empty.md": {"root": "/notes", "chunks": []},
    }
    found = folder_contents(manifest(tmp_path, {"files": files, "documents": {"id": {"source": "a page"}}}))
    assert set(found.documents) == {
        *("/notes/mills/a.md", "mills/a.md"),
        *("/notes/b.md", "b.md"),
        *("/moved/c.md", "c.md"),
        *("id", "a page"),
    }
    assert set(found.documents.values()) == {None}  # the manifest does not name the texts
    assert found.parts


def test_a_persisted_index_of_llamaindex_has_the_texts_too(tmp_path):
    docstore = SimpleDocumentStore()
    source = {NodeRelationship.SOURCE: RelatedNodeInfo(node_id="rivers")}
    docstore.add_documents([TextNode(text="A river.", id_="node", relationships=source)])
    docstore.persist(str(tmp_path / "docstore.json"))
    manifest(tmp_path, {})  # of something else
    assert folder_contents(tmp_path).documents == {"rivers": frozenset({text_hash("A river.")})}


def test_a_folder_without_an_index_is_refused(tmp_path):
    with pytest.raises(ConfigurationError, match=r"holds no index: neither docstore.json, .* nor the manifest.json"):
        folder_contents(tmp_path)


@pytest.mark.parametrize("content", [[], {"files": {}}, {"files": {"a": {}}, "documents": {}}])
def test_a_manifest_of_another_form_is_refused(tmp_path, content):
    with pytest.raises(ConfigurationError, match="cannot be read, nothing was removed"):
        folder_contents(manifest(tmp_path, content))
