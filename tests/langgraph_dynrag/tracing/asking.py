"""Asks once, in a process of its own, and prints the events: `python -m tests.langgraph_dynrag.tracing.asking`."""

import json

from tests.langgraph_dynrag.tracing.conftest import QUESTION, flare_of, made_lm

if __name__ == "__main__":
    print(json.dumps(flare_of(made_lm()).invoke({"question": QUESTION})["trace"]))
