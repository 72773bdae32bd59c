"""The trace's page as a tree of elements, to test its properties."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from html.parser import HTMLParser

VOID = {"meta", "br"}


@dataclass
class Element:
    """An element with its attributes and children, which are elements and texts."""

    tag: str
    attributes: dict[str, str | None]
    children: list[Element | str] = field(default_factory=list)

    @property
    def text(self) -> str:
        """All text within the element, without style sheets."""
        parts = (c if isinstance(c, str) else c.text for c in self.children)
        return "" if self.tag == "style" else "".join(parts)

    def all(self, tag: str = "", style: str = "") -> list[Element]:
        """Return all elements within this one that have the tag and the class."""
        return [e for e in self._within() if tag in ("", e.tag) and (not style or style in e.classes)]

    def one(self, tag: str = "", style: str = "") -> Element:
        """Return the only such element."""
        (found,) = self.all(tag, style)
        return found

    @property
    def classes(self) -> list[str]:
        return (self.attributes.get("class") or "").split()

    def _within(self) -> Iterator[Element]:
        for child in self.children:
            if isinstance(child, Element):
                yield child
                yield from child._within()


def parsed(html: str) -> Element:
    """Return the tree of a page, checking that each element is closed."""
    parser = _Parser()
    parser.feed(html)
    parser.close()
    assert len(parser.open) == 1, parser.open[-1].tag
    return parser.open[0]


class _Parser(HTMLParser):
    def __init__(self):
        super().__init__()
        self.open = [Element("", {})]

    def handle_starttag(self, tag, attrs):
        element = Element(tag, dict(attrs))
        self.open[-1].children.append(element)
        if tag not in VOID:
            self.open.append(element)

    def handle_endtag(self, tag):
        assert self.open.pop().tag == tag

    def handle_data(self, data):
        self.open[-1].children.append(data)
