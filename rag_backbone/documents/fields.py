"""Common JSON layouts of texts: picks the text field, and returns the other fields as plain metadata.

Supported are rows of datasets, and the dumps of LangChain's `Document` (`model_dump`, `dumpd`) and of LlamaIndex's
nodes (`to_dict`). No framework is imported.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from typing import Any

from rag_backbone.checks import shown
from rag_backbone.plain_data import NotPlainError, as_plain_data
from rag_backbone.text.unicode import repaired

TEXT_KEYS = ("text", "contents", "content", "page_content", "paragraph_text", "text_resource")
_METADATA_KEYS = ("metadata", "meta", "extra_info")
# Internal fields of LlamaIndex's nodes.
_OF_NODES = frozenset(
    {
        "class_name",
        "embedding",
        "end_char_idx",
        "excluded_embed_metadata_keys",
        "excluded_llm_metadata_keys",
        "mimetype",
        "metadata_separator",
        "metadata_seperator",
        "metadata_template",
        "relationships",
        "start_char_idx",
        "text_template",
    }
)
_DEPTH = 20


def text_and_fields(item: Any) -> tuple[str, dict[str, Any]]:
    """Return a row's text, and its other fields together with those of its `metadata` object.

    Raises:
        ValueError: Saying what is missing or wrong, phrased to follow the row's name: `"has no text; ..."`.
    """
    if isinstance(item, str):
        item = {"text": item}
    if not isinstance(item, Mapping):
        raise ValueError(f"is {shown(item)}; an object with a text is needed")  # noqa: TRY004 - the row is wrong
    item = _unwrapped(item)
    by_name = {str(key).lower(): key for key in reversed(list(item))}
    present = [by_name[name] for name in TEXT_KEYS if name in by_name]
    for key in present:
        if text := _joined(item[key], str(key)):
            others = {k: v for k, v in item.items() if k != key and not (k in present and _says(v, ("", text)))}
            return text, _flat(others)
    if present:
        raise ValueError(f"has a blank {present[0]!r}")
    raise ValueError(f"has no text; looked for the keys {', '.join(TEXT_KEYS)}, found {', '.join(map(str, item))}")


def plain_fields(fields: Mapping[str, Any], note: Callable[[str], None]) -> dict[str, Any]:
    """Return fields as plain data: strings without lone surrogates, dates as ISO strings, no NaN.

    Args:
        fields: Fields with any values, such as those of a YAML header; None is left out.
        note: Called with each change that loses information.
    """
    found: dict[str, Any] = {}
    for name, value in fields.items():
        if isinstance(value, float) and not math.isfinite(value):
            note(f"{name!r} is {value}, which is not a value, and was left out")
            continue
        try:
            kept = as_plain_data(value)
        except NotPlainError as error:
            note(f"{name!r} ({error}) cannot be stored and was left out")
            continue
        if kept is not None:
            found[_repaired(name, note, "a name")] = _repaired(kept, note, name)
    return found


def plain_text(text: str, note: Callable[[str], None]) -> str:
    """Return a text without lone surrogates and NUL characters; `note` is called with what was replaced."""
    kept: str = _repaired(text, note, "text")
    if nuls := kept.count("\0"):
        note(f"NUL characters, left out: {nuls}")
    return kept.replace("\0", "")


def as_line(value: Any) -> str:
    """Return a field as one line of text; `""` for None."""
    if value is None:
        return ""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    return " ".join(text.split())


def _repaired(value: Any, note: Callable[[str], None], name: str) -> Any:
    if isinstance(value, str):
        text, lone = repaired(value)
        if lone:
            note(f"lone surrogates in {name!r}, replaced by U+FFFD: {lone}")
        return text
    if isinstance(value, list):
        return [_repaired(v, note, name) for v in value]
    if isinstance(value, dict):
        return {_repaired(k, note, name): _repaired(v, note, f"{name}.{k}") for k, v in value.items()}
    return value


def _unwrapped(item: Mapping[str, Any]) -> Mapping[str, Any]:
    if isinstance(inner := item.get("kwargs"), Mapping) and "lc" in item:  # LangChain's dumpd
        item = inner
    if isinstance(inner := item.get("__data__"), Mapping):  # LlamaIndex's document stores
        item = inner
    if "page_content" in item and item.get("type") == "Document":  # LangChain's model_dump
        return {k: v for k, v in item.items() if k != "type"}
    if "id_" in item:
        return {k: v for k, v in item.items() if k not in _OF_NODES}
    return item


def _joined(value: Any, key: str, depth: int = 0) -> str:
    """Return a text, or the parts of a list joined by line ends; blank if there is none."""
    if value is None:
        return ""
    if isinstance(value, str):
        return value if value.strip() else ""
    if depth > _DEPTH:
        raise ValueError(f"has a text under {key!r} that is nested too deeply")
    if isinstance(value, list | tuple):
        return "\n".join(part for part in (_joined(v, key, depth + 1) for v in value) if part)
    if isinstance(value, Mapping) and isinstance(value.get("text"), str | list):
        return _joined(value["text"], key, depth + 1)
    raise ValueError(f"has {shown(value)} under {key!r}; a text, or a list of texts, is needed")


def _says(value: Any, texts: tuple[str, str]) -> bool:
    """Return whether a field that might be the text is blank, or repeats the text."""
    try:
        return _joined(value, "") in texts
    except ValueError:
        return False


def _flat(fields: dict[str, Any]) -> dict[str, Any]:
    """Return the fields merged with those of the row's `metadata`; if names clash, both values are kept."""
    found = {k: v for k, v in fields.items() if v is not None}
    for key in _METADATA_KEYS:
        if isinstance(inner := found.get(key), Mapping):
            del found[key]
            for name, value in inner.items():
                found[f"{key}.{name}" if found.get(name, value) != value else name] = value
    return found
