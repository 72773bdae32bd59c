"""Functions that are called with the events of each node when it ends, such as those that write traces."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

from langchain_core.runnables import RunnableConfig

from langgraph_dynrag.events.events import Event

Observer: TypeAlias = Callable[[Sequence[Event], RunnableConfig], None]
"""Takes the events of a node and the node's config, whose callbacks name its run. It must not raise."""

_observers: tuple[Observer, ...] = ()


def add_observer(observer: Observer) -> None:
    """Call a function for every node of every graph in this process, from now on."""
    global _observers  # noqa: PLW0603 - replaced as a whole, so that running nodes need no lock
    _observers = (*_observers, observer)


def remove_observer(observer: Observer) -> None:
    """Stop calling a function; one that was not added is ignored."""
    global _observers  # noqa: PLW0603
    _observers = tuple(known for known in _observers if known != observer)


def notify(events: Sequence[Event], config: RunnableConfig) -> None:
    """Call the observers with the events of a node that ends."""
    for observer in _observers:
        observer(events, config)
