"""HTML pages, read with BeautifulSoup: their visible text, title, and metadata."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rag_backbone.documents.decoding import decode
from rag_backbone.documents.pieces import Extract

# The encodings that browsers use for these names (https://encoding.spec.whatwg.org/#names-and-labels).
_BROWSERS = {
    "ascii": "cp1252",
    "us-ascii": "cp1252",
    "iso-8859-1": "cp1252",
    "latin1": "cp1252",
    "iso-8859-9": "cp1254",
    "gb2312": "gb18030",
    "gbk": "gb18030",
    "shift_jis": "cp932",
    "sjis": "cp932",
    "x-sjis": "cp932",
    "euc-kr": "cp949",
    "ks_c_5601-1987": "cp949",
    "utf-16": "utf-8",
    "x-gbk": "gb18030",
    "tis-620": "cp874",
    "iso-8859-11": "cp874",
}
_UNSEEN = ("script", "style", "template", "head", "noscript", "svg")
_BLOCKS = re.compile(  # BeautifulSoup's own list would change what is read with its version
    "^(address|article|aside|blockquote|body|br|caption|dd|details|div|dl|dt|figcaption|figure|footer|form|h[1-6]|header"
    "|hr|li|main|nav|ol|option|p|pre|section|summary|table|tr|ul)$"
)
_ABOUT = {
    "author": "author",
    "date": "date",
    "description": "description",
    "dcterms.date": "date",
    "dc.date": "date",
    "article:published_time": "date",
    "article:modified_time": "modified",
}


def read_html(path: Path, encoding: str | None) -> Iterator[Extract]:
    """Read a page as one document, in the character set that it declares unless it is UTF-8."""
    from bs4 import BeautifulSoup, MarkupResemblesLocatorWarning, XMLParsedAsHTMLWarning
    from bs4.dammit import EncodingDetector

    data = path.read_bytes()
    declared = EncodingDetector.find_declared_encoding(data, is_html=True)
    if declared is not None:
        declared = _BROWSERS.get(declared.lower(), declared)
    text = decode(data, encoding, declared=declared)
    with warnings.catch_warnings():  # a short page may look like a file name; parsing XHTML as HTML is intended
        warnings.simplefilter("ignore", MarkupResemblesLocatorWarning)
        warnings.simplefilter("ignore", XMLParsedAsHTMLWarning)
        page = BeautifulSoup(text, "html.parser")
    fields = _about(page)
    yield Extract(_visible(page), fields)


def _about(page: Any) -> dict[str, Any]:
    heading = page.find("title") or page.find("h1")
    found = {"title": heading.get_text() if heading else ""}
    for tag in page.find_all("meta"):
        name = _ABOUT.get(str(tag.get("name") or tag.get("property") or "").lower())
        if name and tag.get("content"):
            found.setdefault(name, str(tag["content"]))
    if (root := page.find("html")) and root.get("lang"):
        found["language"] = str(root["lang"])
    return {name: " ".join(value.split()) for name, value in found.items() if value.strip()}


def _visible(page: Any) -> str:
    """Return the text of the body: a line for each block, a bar between the cells of a table."""
    for tag in page.find_all(_UNSEEN):
        tag.decompose()
    for text in page.find_all(string=re.compile(r"\s")):
        if text.find_parent("pre") is None:
            text.replace_with(type(text)(re.sub(r"\s+", " ", text)))
    for tag in page.find_all(_BLOCKS):
        tag.insert_before("\n")
        tag.append("\n")
    for tag in page.find_all(("td", "th")):
        before = tag.find_previous(("td", "th", "tr"))
        if before is not None and before.name != "tr":
            tag.insert_before(" | ")
    lines = [re.sub(r"[ \t\xa0]+", " ", line).strip() for line in page.get_text().split("\n")]
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip()
