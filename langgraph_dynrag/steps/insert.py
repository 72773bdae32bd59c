"""Inserting text that the model did not write, and separating it from what the answer shows."""

from __future__ import annotations

import math

from langgraph_dynrag.search_tags.formats import shown
from langgraph_dynrag.settings import Settings
from langgraph_dynrag.state import State, Update


def own_words(state: State) -> str:
    """Return the accepted text without inserted blocks and without the calls that they answer."""
    return shown(state.get("text") or "", state.get("hidden") or [])


def last_hidden(state: State) -> int:
    """Return where the last hidden part of the text ends; what follows was written by the model."""
    hidden = state.get("hidden")
    return hidden[-1][1] if hidden else 0


def visible(state: State, settings: Settings) -> str:
    """Return the part of the text that the answer shows. A call that is still open is held back."""
    text = own_words(state)
    return text if settings.tag_format is None else text[: settings.tag_format.open_call(text)]


def insert(update: Update, settings: Settings, block: str, *, since: int | None = None) -> Update:
    """Append a block to the text, hidden from the answer.

    Args:
        update: The update that `accept` returned.
        settings: The graph's settings.
        block: The text to append.
        since: Where the hidden part begins, if it begins before the block.
    """
    begun, ids = update["text"], update["token_ids"]
    more = None if ids is None else settings.generator.token_ids(block)
    return {
        **update,
        "text": begun + block,
        "token_ids": None if ids is None or more is None else [*ids, *more],
        "hidden": [*update["hidden"], [len(begun) if since is None else since, len(begun) + len(block)]],
        "draft": None,
        "attention": None,
    }


def with_call_closed(update: Update, settings: Settings) -> Update:
    """Return the update with an open call closed, which would swallow what is asked for after it."""
    if settings.tag_format is None:
        return update
    at = settings.tag_format.open_call(update["text"], last_hidden(update))
    return update if at is None else insert(update, settings, settings.tag_format.call[1], since=at)


def room_left(state: State, update: Update, settings: Settings) -> float:
    """Return how many tokens of the context window remain after the prompt, the text, and the unused token budgets."""
    generator, budgets = settings.generator, settings.budgets
    if generator.context_window is None:
        return math.inf
    ids = update["token_ids"]
    used = generator.prompt_tokens(settings.prompt.messages(state["question"], ()))
    used += generator.count_tokens(update["text"]) if ids is None else len(ids)
    to_write = max(budgets.tokens - update["answer_tokens"], 0) + budgets.closing_tokens
    return generator.context_window - used - to_write
