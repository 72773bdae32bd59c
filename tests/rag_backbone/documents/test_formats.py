"""The libraries that read HTML, PDF and Word: they log nothing, and a missing one is named."""

import subprocess
import sys

from rag_backbone.documents import ReadDocument
from tests.rag_backbone.documents.files import read, write_pdf, write_word


def test_libraries_log_and_warn_nothing(tmp_path, caplog, recwarn):
    (tmp_path / "a.html").write_text("notes/a.txt")
    (tmp_path / "b.xhtml").write_text('<?xml version="1.0"?><html xmlns="http://www.w3.org/1999/xhtml"><p>x</p></html>')
    (tmp_path / "c.pdf").write_text("no PDF")
    for name in ("a.html", "b.xhtml", "c.pdf"):
        read(tmp_path / name)
    assert not caplog.records
    assert not [w for w in recwarn if "bs4" in str(w.category)]


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
