"""Models of a server: they know one text, and write it as the server's continuation mode requires."""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from tests.openai_server.replies import Says, Token
from tests.openai_server.server import OpenAIServer


def knowing(text: str, server: Callable[[], OpenAIServer], **probabilities: float) -> Says:
    """Create a model that knows one text and continues it from wherever the answer so far stops."""
    pieces = re.findall(r"\s*\w+|\s*[^\w\s]", text)
    tokens = [(p, probabilities.get(re.sub(r"\W", "", p), 0.95)) for p in pieces]

    def says(body: dict[str, Any]) -> list[Token]:
        begun = server().open_answer(body)
        if begun is None:
            asked = body["messages"][-1]["content"]
            begun = asked.partition("without repeating any of it:\n")[2]
        done = "".join(begun.split())
        written = ""
        for i, (piece, _) in enumerate(tokens):
            if len(written) >= len(done):
                first = tokens[i]
                fresh = server().open_answer(body) is None
                return [(first[0].lstrip() if fresh else first[0], first[1]), *tokens[i + 1 :]]
            written += piece.strip()
        return []

    return says


@contextmanager
def serving(text: str, **options: Any) -> Iterator[OpenAIServer]:
    """Run a server whose model knows one text; float options are the probabilities of its words."""
    words = {k: v for k, v in options.items() if isinstance(v, float)}
    rest = {k: v for k, v in options.items() if not isinstance(v, float)}
    made: list[OpenAIServer] = []
    with OpenAIServer(knowing(text, lambda: made[0], **words), **rest) as server:
        made.append(server)
        yield server


def beginning_again(text: str, **probabilities: float) -> Says:
    """Create a model that writes its whole answer at every request, whatever is already written."""
    tokens = [(p, probabilities.get(re.sub(r"\W", "", p), 0.95)) for p in re.findall(r"\s*\w+|\s*[^\w\s]", text)]
    return lambda body: tokens
