"""A corpus of short passages of different lengths."""

from llamaindex_prag.passages import Passage


def passages(n: int) -> list[Passage]:
    """Return `n` passages, each of a document of its own."""
    texts = [f"In {1900 + i} the river rose in the town of Number {i}. " * (1 + i % 4) for i in range(n)]
    return [Passage(text, f"Town {i}", f"d{i}") for i, text in enumerate(texts)]
