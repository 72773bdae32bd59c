"""A realistic folder with many formats, scripts and encodings, some of them broken, ingested in one call."""

import codecs
import json
import logging
import os
import tempfile
from pathlib import Path

import docx
import pytest
from typer.testing import CliRunner

from langgraph_dynrag.retrieval import LocalIndex
from llamaindex_prag.passage_files import read_passages
from rag_backbone.cli import build_app
from rag_backbone.documents import Findings
from tests.langgraph_dynrag.retrieval.indexes import CountedEmbeddings
from tests.rag_backbone.documents.test_formats import write_pdf

FACTS = {
    "english.txt": ("The Cooper's Bridge was built by the mason Aldous Wray.", "Who built the bridge?"),
    "german.md": ("Die Brücke über den Fluß errichtete Meister Ölström.", "Wer errichtete die Brücke über den Fluß?"),
    "chinese.txt": ("这座石桥是由工匠李明建造的。", "石桥是谁建造的？"),
    "hindi.txt": ("पुराना पुल राजमिस्त्री रामलाल ने बनाया था।", "पुराना पुल किसने बनाया था?"),
    "arabic.txt": ("بنى الجسر القديم البناء يوسف.", "من بنى الجسر القديم؟"),
    "thai.txt": ("สะพานเก่าสร้างโดยช่างหินชื่อสมชาย", "ใครสร้างสะพานเก่า"),
}
EXTRA = {
    "front.md": "Tamsin",
    "code.md": "Ferrant",
    "rows.jsonl": "Hallin",
    "lists.jsonl": "Velm",
    "dumped.jsonl": "Nebbin",
    "data.json": "Ombrel",
    "table.csv": "Quill",
    "tabs.tsv": "Toss",
    "page.html": "Šárka",
    "pages.pdf": "Brannoch",
    "word.docx": "Mirela",
    "utf16.txt": "Größe",
    "utf16be.md": "Ångström",
    "sub/UPPER.TXT": "Uppsala",
    "lines.jsonl": "Zither",
}
SKIPPED = {
    "latin.txt": "not UTF-8",
    "gbk.md": "not UTF-8",
    "noted.txt": "UTF-16 without a byte-order mark",
    "pdf.txt": "it is a PDF",
    "empty.md": "empty",
    "blank.txt": "holds no text",
    "broken.pdf": "the PDF cannot be read",
    "scan.pdf": "OCR",
    "locked.pdf": "password",
    "broken.docx": "not a Word document",
    "broken.jsonl": "line 2 is not JSON",
    "broken.json": "is not JSON",
    "latin.html": "not UTF-8",
    "latin.csv": "not UTF-8",
    "photo.png": "no reader",
    "dangling.md": "broken link",
    ".obsidian/": "hidden",
    "node_modules/": "a tool's folder",
}


@pytest.fixture
def folder(tmp_path):
    source = tmp_path / "notes"
    for name in ("sub", ".obsidian", "node_modules/p"):
        (source / name).mkdir(parents=True)

    def write(name, content):
        (source / name).write_bytes(content if isinstance(content, bytes) else content.encode())

    for name, (text, _) in FACTS.items():
        write(name, text)
    write("front.md", "---\ntitle: The river\ndate: 2024-05-01\n---\n\nIt is called Tamsin.")
    write("code.md", "```sh\n# install\n```\n\nA proof\n=======\n\nFerrant wrote it.")
    write("rows.jsonl", json.dumps({"text": "Wray was born in Hallin.", "title": "Wray", "date": "1901-02-03"}))
    write("lists.jsonl", json.dumps({"content": ["He taught.", "It was in Velm."], "tags": ["a", "b"]}))
    write("dumped.jsonl", json.dumps({"page_content": "Born in Nebbin.", "metadata": {"page": 7, "by": {"n": 1}}}))
    write("data.json", json.dumps([{"text": "The country is Ombrel."}]))
    write("lines.jsonl", json.dumps({"text": "He played\u2028the Zither\x85well."}, ensure_ascii=False))
    write("table.csv", "prize;year\nCopper Quill;1911\n")
    write("tabs.tsv", "name\twork\nToss\tpainter\n")
    write("page.html", "<meta charset=iso-8859-2><title>P</title><p>Šárka Žižková".encode("iso8859-2"))
    write_pdf(source / "pages.pdf", "The river Tamsin crosses Brannoch.", None)
    document = docx.Document()
    document.add_paragraph("He married Mirela.")
    document.save(source / "word.docx")
    write("utf16.txt", codecs.BOM_UTF16_LE + "Die Größe zählt.".encode("utf-16-le"))
    write("utf16be.md", codecs.BOM_UTF16_BE + "Ångström maß es.".encode("utf-16-be"))
    write("sub/UPPER.TXT", codecs.BOM_UTF8 + b"Far away is Uppsala.")

    write("latin.txt", "Das Café in Köln.".encode("cp1252"))
    write("gbk.md", "这座桥在城里。".encode("gbk"))
    write("noted.txt", "A note from Notepad.".encode("utf-16-le"))
    write("pdf.txt", b"%PDF-1.7\n\xe2\xe3\xcf\xd3")
    write("empty.md", "")
    write("blank.txt", " \n")
    write("broken.pdf", b"%PDF-1.7\n1 0 obj")
    write_pdf(source / "scan.pdf", None)
    write_pdf(source / "locked.pdf", "secret", password="x")
    write("broken.docx", b"PK\x03\x04")
    write("broken.jsonl", '{"text": "Kept from a broken file."}\n{"text": \n')
    write("broken.json", '[{"text": "x"}')
    write("latin.html", "<p>Köln".encode("cp1252"))
    write("latin.csv", "a\nKöln\n".encode("cp1252"))
    write("photo.png", b"\x89PNG")
    write(".obsidian/workspace.json", '{"text": "x"}')
    write("node_modules/p/README.md", "Not mine.")
    (source / "dangling.md").symlink_to(source / "gone.md")
    return source


def skipped_as_expected(pairs):
    told = dict(pairs)
    assert told.keys() == SKIPPED.keys() | {"pages.pdf"}  # its second page is blank
    for name, reason in SKIPPED.items():
        assert reason in told[name], name


def test_readable_files_are_found_and_the_others_are_listed_with_a_reason(tmp_path, folder, caplog):
    index = LocalIndex(tmp_path / "index", embeddings=CountedEmbeddings(size=8))
    report = index.ingest(folder, progress=False)
    assert report.added == len(FACTS) + len(EXTRA) + 1
    skipped_as_expected(report.skipped)
    searcher = index.as_retriever("bm25", k=3)
    for name, (text, question) in FACTS.items():
        found = searcher.invoke(question)
        assert found, name
        assert found[0].metadata["source"] == name
        assert found[0].page_content == text
    for name, word in EXTRA.items():
        assert name in {d.metadata["source"].partition(":")[0] for d in searcher.invoke(word)}, name
    assert searcher.invoke("Kept from a broken file")[0].page_content == "Kept from a broken file."
    for name, reason in SKIPPED.items():
        assert reason in str(report), name
        if reason not in ("hidden", "a tool's folder"):
            assert reason in caplog.text, name
    assert all(record.levelno == logging.WARNING for record in caplog.records)


def test_metadata_from_files_is_returned_with_their_chunks(tmp_path, folder):
    index = LocalIndex(tmp_path / "index", embeddings=CountedEmbeddings(size=8))
    index.ingest(folder, progress=False)
    for kind in ("bm25", "dense"):
        by_source = {
            d.metadata["source"]: d.metadata
            for d in index.as_retriever(kind, k=50).invoke("Tamsin Ferrant Hallin Velm Nebbin Brannoch Quill Šárka")
        }
        assert (by_source["front.md"]["title"], by_source["front.md"]["date"]) == ("The river", "2024-05-01")
        assert by_source["code.md"]["title"] == "A proof"
        assert by_source["rows.jsonl:1"]["date"] == "1901-02-03"
        assert by_source["lists.jsonl:1"]["tags"] == ["a", "b"]
        assert (by_source["dumped.jsonl:1"]["page"], by_source["dumped.jsonl:1"]["by"]) == (7, {"n": 1})
        assert by_source["pages.pdf"]["page"] == 1
        assert by_source["table.csv"]["prize"] == "Copper Quill"


def test_reasons_are_repeated_for_unchanged_files_without_reading_them(tmp_path, folder, monkeypatch):
    index = LocalIndex(tmp_path / "index", embeddings=CountedEmbeddings(size=8))
    first = index.ingest(folder, progress=False)
    monkeypatch.setattr("langgraph_dynrag.retrieval.ingestion.read_file", lambda path, *_, **__: pytest.fail(str(path)))
    again = index.ingest(folder, progress=False)
    assert sorted(again.skipped) == sorted(first.skipped)
    assert (again.added, again.unchanged, again.embedded) == (0, first.added, 0)


def test_another_encoding_reads_skipped_files_and_embeds_nothing_else(tmp_path, folder):
    index = LocalIndex(tmp_path / "index", embeddings=CountedEmbeddings(size=8))
    index.ingest(folder, exclude=["gbk.md"], progress=False)
    report = index.ingest(folder, encoding="cp1252", exclude=["gbk.md"], progress=False)
    assert (report.added, report.changed, report.embedded) == (3, 0, 3)
    assert not {"latin.txt", "latin.html", "latin.csv"} & dict(report.skipped).keys()
    assert "Köln" in index.as_retriever("bm25").invoke("Café")[0].page_content


def test_index_and_passage_reader_read_the_same_files_in_the_same_way(tmp_path, folder):
    findings = Findings()
    passages = read_passages(folder, findings=findings)
    skipped_as_expected(findings.skipped)
    index = LocalIndex(tmp_path / "index", embeddings=CountedEmbeddings(size=8))
    index.ingest(folder, progress=False)
    chunks = index.as_retriever("dense", k=100).invoke("x")
    assert sorted((d.page_content, d.metadata["title"]) for d in chunks) == sorted((p.text, p.title) for p in passages)
    assert {p.document.partition("#")[0] for p in passages} >= {str(folder / name) for name in (*FACTS, *EXTRA)}


def test_the_command_prints_and_returns_what_was_skipped(tmp_path, folder, monkeypatch):
    monkeypatch.setattr("langgraph_dynrag.retrieval.index.MiniLMEmbeddings", lambda: CountedEmbeddings(size=8))
    call = ["index", str(folder), "--index", str(tmp_path / "index"), "--exclude", "gbk.md", "--encoding", "cp1252"]
    shown = CliRunner().invoke(build_app(), call)
    assert shown.exit_code == 0, shown.output
    assert "broken.jsonl: line 2 is not JSON" in shown.stdout
    told = json.loads(CliRunner().invoke(build_app(), [*call, "--json"]).stdout.splitlines()[-1])
    assert ["gbk.md", "excluded by 'gbk.md'"] in told["skipped"]
    assert "latin.txt" not in dict(told["skipped"])


@pytest.fixture
def plain_user():
    """Yield a folder of a user without root's rights; the test runs as this user."""
    with tempfile.TemporaryDirectory() as name:
        if os.geteuid() == 0:  # root can read everything
            os.chown(name, 65534, 65534)
            os.seteuid(65534)
        try:
            yield Path(name)
        finally:
            if os.getuid() == 0:
                os.seteuid(0)


def test_files_and_folders_without_permission_are_reported_and_their_indexed_content_is_kept(plain_user):
    notes = plain_user / "notes"
    (notes / "private").mkdir(parents=True)
    (notes / "unsearchable").mkdir()
    for name in ("a.txt", "b.txt", "private/c.txt", "unsearchable/d.txt"):
        (notes / name).write_text(f"The text of {name}.")
    index = LocalIndex(plain_user / "index", embeddings=CountedEmbeddings(size=8))
    assert index.ingest(notes, progress=False).added == 4
    (notes / "b.txt").write_text("Other text.")
    (notes / "new.txt").write_text("New text.")
    for name in ("b.txt", "new.txt", "private"):
        (notes / name).chmod(0)
    (notes / "unsearchable").chmod(0o600)
    report = index.ingest(notes, progress=False)
    assert dict(report.skipped) == {
        "b.txt": "cannot be read: Permission denied; its previously indexed content is kept",
        "new.txt": "cannot be read: Permission denied",
        "private/": "cannot be listed: Permission denied",
        "unsearchable/d.txt": "cannot be read: Permission denied",
    }
    assert (report.removed, report.unchanged, report.chunks) == (0, 1, 4)
    for name in ("b.txt", "new.txt", "private", "unsearchable"):
        (notes / name).chmod(0o700)
    report = index.ingest(notes, progress=False)
    assert (report.added, report.changed, report.unchanged, report.skipped) == (1, 1, 3, ())


def test_an_index_inside_the_folder_is_not_indexed(folder):
    index = LocalIndex(folder / "sub" / "index", embeddings=CountedEmbeddings(size=8))
    index.ingest(folder, progress=False)
    report = index.ingest(folder, progress=False)
    assert report.added == 0
    skipped_as_expected(report.skipped)
