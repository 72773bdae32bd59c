"""Names of documents, from the metadata that readers and loaders set."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rag_backbone.documents.names import is_opaque, page_of, readable_name, source_of, title_of

SHA = "3a7bd3e2360a3d29eea436fcfb7e44c735d117c42d1c1835420b6b9942dd4f1b"
UUID = "b2c1e3d4-5f60-4a71-8b92-c3d4e5f60718"


@pytest.mark.parametrize(
    ("metadata", "title"),
    [
        ({"title": "The bridge", "file_name": "a.pdf"}, "The bridge"),
        ({"Title": "The bridge"}, "The bridge"),
        ({"title": "", "file_name": "old_bridge.pdf"}, "old bridge"),  # LlamaIndex's SimpleDirectoryReader
        ({"title": None, "file_path": "/notes/old-bridge.md"}, "old bridge"),
        ({"source": "/data/annual report.pdf", "page": 3}, "annual report"),  # LangChain's PyPDFLoader
        ({"source": r"C:\notes\old_bridge.docx"}, "old bridge"),
        ({"source": "https://example.org/wiki/Old_bridge?x=1#top"}, "Old bridge"),
        ({"url": "https://example.org/br%C3%BCcke.html"}, "brücke"),
        ({"url": "https://example.org"}, "example.org"),
        ({"filename": "Брод.txt"}, "Брод"),  # Unstructured
        ({"source": "crm"}, "crm"),
        ({"source": "http://[broken"}, "[broken"),
        ({"source": "v1.2 notes"}, "v1.2 notes"),
        ({"source": "people.jsonl:7"}, ""),
        ({"source": SHA}, ""),
        ({"source": f"/blobs/{UUID}.txt"}, ""),
        ({"source": ["a", "b"]}, ""),
        ({"page": 3}, ""),
        ({}, ""),
    ],
)
def test_a_title_comes_from_the_best_available_field(metadata, title):
    assert title_of(metadata) == title


@pytest.mark.parametrize(
    ("metadata", "page"),
    [({"page_label": "iv", "page": 3}, "iv"), ({"page_number": 2}, "2"), ({"page": 0}, "0"), ({"page": True}, "")],
)
def test_a_page_has_the_label_of_its_metadata(metadata, page):
    assert page_of(metadata) == page


def test_a_source_comes_from_the_best_available_field():
    assert source_of({"file_name": "a.md", "url": "https://example.org/a"}) == "https://example.org/a"
    assert source_of({"file_name": "a.md", "file_path": "/notes/a.md"}) == "/notes/a.md"
    assert source_of({"source": 7}) == "7"
    assert source_of({"title": "T"}) == ""


def test_an_untitled_document_is_named_by_source_or_first_words_not_by_a_hash():
    assert readable_name("", "people.jsonl:7", "Joan Pike sings.", SHA) == "people.jsonl:7"
    assert readable_name("", SHA, "Joan Pike sings.", SHA) == "Joan Pike sings."
    assert readable_name("", SHA[:24], "Joan Pike sings.") == "Joan Pike sings."
    assert readable_name("", UUID, "Joan Pike\nsings.", UUID) == "Joan Pike sings."
    assert readable_name("", "note-a", "Joan Pike sings.", "note-a") == "Joan Pike sings."
    assert readable_name("", "", "word " * 50) == "word word word word word word word word word word word word ..."
    assert readable_name("", "", "字" * 200) == "字" * 60 + " ..."
    assert readable_name("", "", "", "note-a") == "note-a"


@pytest.mark.parametrize("name", ["Würm", "deadbeef.md", "cafe", "1954 in music", "facade", "2024-03-01-notes"])
def test_words_are_not_hashes(name):
    assert not is_opaque(name)


@given(st.dictionaries(st.text(), st.none() | st.text() | st.integers() | st.lists(st.text())))
def test_any_metadata_is_accepted(metadata):
    for read in (title_of, page_of, source_of):
        assert isinstance(read(metadata), str)
