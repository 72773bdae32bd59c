"""An extension of griffe, which reads the docstrings for the API reference.

Google's style knows the section `Examples`. With `Example`, which reads better before a single one, griffe takes the
lines after `>>>` for a quotation, so the heading is replaced.
"""

from typing import Any

import griffe


class SingleExample(griffe.Extension):
    """Reads a section `Example:` as `Examples:`."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Change the docstring in memory."""
        if obj.docstring is not None:
            obj.docstring.value = obj.docstring.value.replace("\nExample:\n", "\nExamples:\n")
