"""The pages of the documentation, and the Python blocks in them."""

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
MEASURED = ("results-dynamic", "results-triggers", "results-queries", "results-parametric", "results-translator")
"""Pages of figures; their commands take hours."""
_BLOCK = re.compile(r"(?:<!-- not run: (?P<why>[^>]+) -->\n)?```python\n(?P<code>.*?)```", re.DOTALL)


@dataclass(frozen=True)
class Block:
    """A block of Python, and where it stands."""

    page: str
    line: int
    code: str
    why_not: str | None
    """Why it is not run; None if it is."""

    @property
    def where(self) -> str:
        return f"{self.page}:{self.line}"


def pages() -> list[Path]:
    """Return README and the pages that explain something."""
    return [ROOT / "README.md", *(p for p in sorted(DOCS.glob("*.md")) if p.stem not in MEASURED)]


def blocks(page: Path) -> list[Block]:
    text = page.read_text("utf-8")
    return [
        Block(page.name, text.count("\n", 0, found.start("code")) + 1, found["code"], found["why"])
        for found in _BLOCK.finditer(text)
    ]
