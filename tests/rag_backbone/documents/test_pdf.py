"""PDF files: a document for each page, and why a file cannot be read."""

from pypdf import PdfReader

from rag_backbone.documents import Skipped
from tests.rag_backbone.documents.files import read, write_pdf


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
