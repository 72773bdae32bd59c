"""Writes files in the formats that are read, and reads them."""

import json

import docx
from pypdf import PdfWriter
from pypdf.generic import DecodedStreamObject, DictionaryObject, NameObject

from rag_backbone.documents import read_file


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


def read_rows(tmp_path, *items, name="a.jsonl"):
    path = tmp_path / name
    path.write_text("\n".join(item if isinstance(item, str) else json.dumps(item) for item in items))
    return list(read_file(path, name))
