"""HTML, tables, PDF and Word: the whole text in the right encoding, with the metadata of the file."""

import subprocess
import sys
import zipfile

import docx
import pytest
from pypdf import PdfReader, PdfWriter
from pypdf.generic import DecodedStreamObject, DictionaryObject, NameObject

from rag_backbone.documents import Note, ReadDocument, Skipped, read_file


def read(path, **options):
    return list(read_file(path, path.name, **options))


def write_pdf(path, *pages, password=None, algorithm="AES-256", **about):
    """Write a PDF with a line of Latin text on each page; None is a page without text."""
    writer = PdfWriter()
    font = DictionaryObject(
        {
            NameObject("/Type"): NameObject("/Font"),
            NameObject("/Subtype"): NameObject("/Type1"),
            NameObject("/BaseFont"): NameObject("/Helvetica"),
            NameObject("/Encoding"): NameObject("/WinAnsiEncoding"),
        }
    )
    for text in pages:
        page = writer.add_blank_page(300, 300)
        if text is None:
            continue
        page[NameObject("/Resources")] = DictionaryObject(
            {NameObject("/Font"): DictionaryObject({NameObject("/F1"): writer._add_object(font)})}
        )
        stream = DecodedStreamObject()
        stream.set_data(b"BT /F1 12 Tf 20 200 Td (" + text.encode("cp1252") + b") Tj ET")
        page[NameObject("/Contents")] = writer._add_object(stream)
    writer.add_metadata(about)
    if password is not None:
        writer.encrypt(password, algorithm=algorithm, owner_password="owner")
    writer.write(path)
    return path


def test_the_pages_of_a_pdf_have_their_numbers(tmp_path):
    path = write_pdf(
        tmp_path / "a.pdf", "The bridge.", None, "Die Brücke.", **{"/Title": "Bridges", "/ModDate": "D:20240501103000Z"}
    )
    first, third, blank = read(path)
    assert [(d.text.strip(), d.title, d.metadata["page"]) for d in (first, third)] == [
        ("The bridge.", "Bridges", 1),
        ("Die Brücke.", "Bridges", 3),
    ]
    assert first.metadata["date"].startswith("2024-05-01T10:30")
    assert blank == Skipped("a.pdf", "1 of 3 pages have no text (blank or scanned): 2")


def test_the_reason_for_an_unreadable_pdf_is_reported(tmp_path):
    whole = write_pdf(tmp_path / "whole.pdf", "x").read_bytes()
    cases = {
        "scanned": (write_pdf(tmp_path / "scanned.pdf", None, None), "has no text; if it is scanned"),
        "locked": (write_pdf(tmp_path / "locked.pdf", "x", password="secret"), "needs a password"),
        "old": (write_pdf(tmp_path / "old.pdf", "x", password="secret", algorithm="RC4-128"), "needs a password"),
        "cut": (tmp_path / "cut.pdf", "cannot be read"),
        "page": (tmp_path / "page.pdf", "cannot be read"),
    }
    (tmp_path / "cut.pdf").write_bytes(whole[:40])
    (tmp_path / "page.pdf").write_text("<html>404</html>")
    for path, reason in cases.values():
        [found] = read(path)
        assert reason in found.reason, path


def test_an_encrypted_pdf_without_a_password_is_read(tmp_path):
    path = write_pdf(tmp_path / "a.pdf", "The bridge.", password="")
    assert PdfReader(path).is_encrypted
    assert [d.text.strip() for d in read(path)] == ["The bridge."]


PAGE = """<!DOCTYPE html><html lang="x"><head><meta http-equiv="Content-Type" content="text/html; charset={}">
<title>T &amp; Ü</title><meta name="date" content="2024-05-01"><style>p {{}}</style></head><body><script>var x</script>
<h1>{}</h1><p>one <b>bo</b>ld<br>two</p><ul><li>three<li>four</ul><table><tr><td>a<td>b<tr><th>c</th><th>d</th></table>
<pre>  x = 1
  y</pre></body></html>"""


@pytest.mark.parametrize(
    ("charset", "codec", "word"),
    [
        ("utf-8", "utf-8", "这座桥"),
        ("windows-1252", "cp1252", "Brücke €"),
        ("iso-8859-1", "cp1252", "Œ “x”"),
        ("gb2312", "gbk", "這座橋"),
        ("shift_jis", "shift_jis", "橋"),
        ("koi8-r", "koi8-r", "Мост"),
        ("windows-1256", "cp1256", "الجسر"),
        ("tis-620", "cp874", "สะพาน"),
        ("iso-8859-1", "utf-8", "Brücke"),
    ],
)
def test_html_is_read_in_the_charset_that_it_declares(tmp_path, charset, codec, word):
    path = tmp_path / "a.HTM"
    path.write_bytes(PAGE.format(charset, word).replace("Ü", "&Uuml;").encode(codec))
    [found] = read(path)
    assert (found.title, found.metadata) == ("T & Ü", {"date": "2024-05-01", "language": "x"})
    lines = [line for line in found.text.split("\n") if line]
    assert lines == [word, "one bold", "two", "three", "four", "a | b", "c | d", "x = 1", "y"]


def test_html_without_a_valid_charset_is_refused_unless_the_encoding_is_named(tmp_path):
    path = tmp_path / "a.html"
    path.write_bytes("<p>Мост</p>".encode("cp1251"))
    [found] = read(path)
    assert "pass its encoding" in found.reason
    assert [d.text for d in read(path, encoding="cp1251")] == ["Мост"]


def test_a_row_of_a_table_is_a_document(tmp_path):
    path = tmp_path / "people.csv"
    path.write_bytes('\ufeffName,born,note\r\n"Wray, A.",1901,"two\nlines"\r\n,,\r\nPike,,,extra\r\n'.encode())
    first, second = read(path)
    assert first.text == "Name: Wray, A.\nborn: 1901\nnote: two\nlines"
    assert first.metadata == {"Name": "Wray, A.", "born": "1901", "note": "two\nlines", "row": 1}
    assert (first.source, first.title) == ("people.csv", "people")
    assert second.text == "Name: Pike\ncolumn 4: extra"


@pytest.mark.parametrize(
    ("name", "text"),
    [("a.csv", "Ort;Preis\nKöln;1,50\n"), ("a.TSV", "Ort\tPreis\nKöln\t1,50\n"), ("b.csv", "Ort|Preis\nKöln|1,50")],
)
def test_tables_may_have_other_separators_and_encodings(tmp_path, name, text):
    (tmp_path / name).write_bytes(text.encode("cp1252"))
    [refused] = read(tmp_path / name)
    assert "not UTF-8" in refused.reason
    [found] = read(tmp_path / name, encoding="cp1252")
    assert found.text == "Ort: Köln\nPreis: 1,50"


def test_the_title_and_source_columns_of_a_table_are_used(tmp_path):
    (tmp_path / "a.csv").write_text("Title,URL,date,text\nT,https://a.example,2024-05-01,words\n")
    [found] = read(tmp_path / "a.csv")
    assert (found.title, found.source) == ("T", "https://a.example")
    assert found.metadata["date"] == "2024-05-01"


def write_word(path):
    document = docx.Document()
    document.core_properties.author = "Zoë"
    document.add_heading("The bridge", 1)
    document.add_paragraph("Before the table.")
    table = document.add_table(2, 2)
    for cell, text in zip((c for row in table.rows for c in row.cells), ["a", "a", "b", "c"], strict=True):
        cell.text = text
    document.add_paragraph("After the table.")
    document.save(path)
    return document


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


def test_libraries_log_and_warn_nothing(tmp_path, caplog, recwarn):
    (tmp_path / "a.html").write_text("notes/a.txt")
    (tmp_path / "b.xhtml").write_text('<?xml version="1.0"?><html xmlns="http://www.w3.org/1999/xhtml"><p>x</p></html>')
    (tmp_path / "c.pdf").write_text("no PDF")
    for name in ("a.html", "b.xhtml", "c.pdf"):
        read(tmp_path / name)
    assert not caplog.records
    assert not [w for w in recwarn if "bs4" in str(w.category)]


def test_a_broken_word_document_is_reported(tmp_path):
    (tmp_path / "a.docx").write_bytes(b"PK\x03\x04 not a zip")
    with zipfile.ZipFile(tmp_path / "b.docx", "w") as archive:
        archive.writestr("a.txt", "x")
    for name in ("a.docx", "b.docx"):
        [found] = read(tmp_path / name)
        assert found.reason.startswith("not a Word document (.docx)")


WITHOUT = """
import sys, pathlib
class Missing:
    def find_spec(self, name, path=None, target=None):
        if name in ("pypdf", "bs4", "docx"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Missing())
from rag_backbone.documents import read_file
for name in sys.argv[1:]:
    for piece in read_file(pathlib.Path(name), pathlib.Path(name).name):
        print(getattr(piece, "reason", piece.__class__.__name__))
"""


def test_the_reason_for_a_missing_library_is_the_line_to_install_it(tmp_path):
    (tmp_path / "a.html").write_text("<p>x")
    (tmp_path / "a.csv").write_text("a\n1\n")
    write_pdf(tmp_path / "a.pdf", "x")
    write_word(tmp_path / "a.docx")
    names = [str(tmp_path / name) for name in ("a.html", "a.pdf", "a.docx", "a.csv")]
    told = subprocess.run([sys.executable, "-c", WITHOUT, *names], capture_output=True, text=True, check=True).stdout
    assert told.splitlines() == [
        *(f"needs {library}: pip install 'dynprag[files]'" for library in ("beautifulsoup4", "pypdf", "python-docx")),
        ReadDocument.__name__,
    ]
