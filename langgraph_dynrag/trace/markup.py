"""Building blocks of the trace's page: escaping, the direction of text, folds, and a limit on the page's size.

Text of users, models and documents passes through `plain`, `block` or `inline`, which escape it. Nothing else of a run
may enter the page.
"""

from __future__ import annotations

from html import escape

from rag_backbone.text.unicode import repaired

# HTML has no control characters other than these; all others are shown as a space.
_CONTROLS = dict.fromkeys([*range(9), 11, 12, *range(14, 32), *range(127, 160)], " ")


def document(title: str, content: str) -> str:
    """Return a complete HTML document of some content, which is HTML itself."""
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f'<meta name="color-scheme" content="light dark"><title>{plain(title)}</title></head>'
        f'<body class="dynrag-page">{content}</body></html>\n'
    )


def section(title: str, content: str) -> str:
    """Return HTML under a heading; nothing without content."""
    return f"<section><h3>{title}</h3>{content}</section>" if content else ""


def plain(text: object) -> str:
    """Return a text escaped for the content of an element, without what UTF-8 cannot encode."""
    return escape(repaired(str(text))[0].translate(_CONTROLS), quote=False)


def block(text: object, tag: str = "p", style: str = "said") -> str:
    """Return a text as an element of its own, in the direction of its first letter."""
    return f'<{tag} class="{style}" dir="auto">{plain(text)}</{tag}>'


def inline(text: object) -> str:
    """Return a text for the middle of a line, which its direction does not affect."""
    return f"<bdi>{plain(text)}</bdi>"


def quoted(text: object) -> str:
    """Return a text for the middle of a line, in quotation marks."""
    return f"\u201c{inline(text)}\u201d"


def fold(summary: str, content: str, *, is_open: bool = False, style: str = "") -> str:
    """Return HTML that opens on a click on its summary; both are HTML themselves."""
    named = f' class="{style}"' if style else ""
    return f"<details{named}{' open' if is_open else ''}><summary>{summary}</summary>{content}</details>"


def foldable(text: str, lead: int, *, style: str = "said") -> str:
    """Return a text, folded to its first `lead` characters if it is much longer."""
    whole = block(text, style=style)
    if len(text) <= lead * 5 // 4:
        return whole
    first = text[:lead].rsplit(" ", 1)[0]
    marks = '<bdi class="more">all of it</bdi><bdi class="less">first lines</bdi>'
    summary = f'<summary class="{style}" dir="auto"><span class="lead">{plain(first)} ...</span> {marks}</summary>'
    return f'<details class="text">{summary}{whole}</details>'


def number(value: float) -> str:
    """Return a number with three significant digits, and a real minus sign."""
    return f"{value:.3g}".replace("-", "\u2212")


def seconds(value: float) -> str:
    """Return a duration as HTML: with two decimals, or as less than 0.01 s."""
    return "&lt; 0.01 s" if 0 < value < 0.005 else f"{value:.2f} s"


def counted(count: int, noun: str, plural: str = "") -> str:
    """Return a count with its noun, such as "1 passage" or "2 passages"."""
    return f"{count:,} {noun if count == 1 else plural or noun + 's'}"


def shortened(text: str, most: int) -> str:
    """Return the first `most` characters of a text, with a note of how many are missing."""
    missing = len(text) - most
    return text if missing <= 0 else f"{text[:most]} [{missing:,} more characters]"


class Allowance:
    """The room that one kind of content has on a page, so that the page of a long run stays small.

    Args:
        size: Characters, tokens or items.
    """

    def __init__(self, size: int) -> None:
        self.left = size

    def take(self, size: int) -> bool:
        """Return whether content of this size still fits, and if so, count it."""
        fits = size <= self.left
        if fits:
            self.left -= size
        return fits

    def cut(self, text: str, most: int) -> str:
        """Return a text, shortened to what is left and to at most `most` characters, and count it."""
        most = max(0, min(most, self.left))
        self.left -= min(len(text), most)
        return shortened(text, most)
