"""HTML pages: their visible text, in the encoding that they declare."""

import pytest

from tests.rag_backbone.documents.files import read

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


def test_a_page_without_a_title_is_named_by_its_first_heading(tmp_path):
    path = tmp_path / "a.html"
    path.write_text(
        '<meta property="article:published_time" content=" 2024 "><meta name="author"><h1>The\n bridge</h1>x'
    )
    [found] = read(path)
    assert (found.title, found.metadata, found.text) == ("The bridge", {"date": "2024"}, "The bridge\nx")
