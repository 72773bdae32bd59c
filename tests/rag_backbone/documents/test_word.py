"""Word documents: paragraphs, tables and text boxes in order, and what is left out."""

import zipfile

import docx

from rag_backbone.documents import Note
from tests.rag_backbone.documents.files import read, write_word


def test_a_word_document_is_read_in_order(tmp_path):
    write_word(tmp_path / "a.docx")
    [found] = read(tmp_path / "a.docx")
    assert found.text == "The bridge\n\nBefore the table.\n\na | a\nb | c\n\nAfter the table."
    assert (found.title, found.metadata["author"]) == ("The bridge", "Zoë")


def test_controls_insertions_and_text_boxes_are_read_and_omitted_headers_are_reported(tmp_path):
    document = write_word(tmp_path / "a.docx")
    document.sections[0].header.paragraphs[0].text = "In the header"
    document.save(tmp_path / "b.docx")
    word = 'xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/main"'
    run = "<w:r><w:t>{}</w:t></w:r>"
    added = (
        f"<w:sdt {word}><w:sdtContent><w:p>{run.format('in a control')}</w:p></w:sdtContent></w:sdt>"
        f"<w:p {word}><w:ins>{run.format('inserted')}</w:ins><w:del><w:r><w:delText>deleted</w:delText></w:r></w:del>"
        f"<w:r><w:pict><w:txbxContent><w:p>{run.format('in a box')}</w:p></w:txbxContent></w:pict></w:r></w:p>"
    )
    with zipfile.ZipFile(tmp_path / "b.docx") as old, zipfile.ZipFile(tmp_path / "c.docx", "w") as new:
        for item in old.infolist():
            data = old.read(item)
            if item.filename == "word/document.xml":
                data = data.replace(b"<w:body>", b"<w:body>" + added.encode())
            new.writestr(item, data)
    note, found = read(tmp_path / "c.docx")
    assert note == Note("c.docx", "the text of headers was left out")
    assert found.text.startswith("in a control\n\ninserted\nin a box\n\nThe bridge")
    assert "deleted" not in found.text


def test_a_nested_table_is_read_once(tmp_path):
    document = docx.Document()
    table = document.add_table(1, 2)
    table.cell(0, 0).text = "outer"
    inner = table.cell(0, 1).add_table(1, 2)
    inner.cell(0, 0).text, inner.cell(0, 1).text = "inner", "cells"
    document.save(tmp_path / "a.docx")
    [found] = read(tmp_path / "a.docx")
    assert found.text.split() == ["outer", "|", "inner", "cells"]


def test_a_broken_word_document_is_reported(tmp_path):
    (tmp_path / "a.docx").write_bytes(b"PK\x03\x04 not a zip")
    with zipfile.ZipFile(tmp_path / "b.docx", "w") as archive:
        archive.writestr("a.txt", "x")
    for name in ("a.docx", "b.docx"):
        [found] = read(tmp_path / name)
        assert found.reason.startswith("not a Word document (.docx)")
