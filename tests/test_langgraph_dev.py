"""The example graph in a real `langgraph dev`, asked through the LangGraph SDK.

DYNPRAG_LANGGRAPH   the `langgraph` command of an environment with the extra `studio`; `make test-langgraph-dev` sets it
"""

import os
import socket
import subprocess
import time
from collections import Counter
from contextlib import closing
from pathlib import Path

import httpx
import pytest
from langgraph_sdk import get_client

ROOT = Path(__file__).parents[1]
QUESTION = "In which year was Tarn Ellis founded?"
pytestmark = pytest.mark.langgraph_dev


def free_port():
    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        return taken.getsockname()[1]


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """The address of the server, and the file that it logs to."""
    command = os.environ.get("DYNPRAG_LANGGRAPH")
    if not command:
        pytest.skip("DYNPRAG_LANGGRAPH is not set; run make test-langgraph-dev")
    port, log = free_port(), tmp_path_factory.mktemp("server") / "log"
    arguments = [str(Path(command).absolute()), "dev", "--no-browser", "--no-reload", "--port", str(port)]
    url = f"http://127.0.0.1:{port}"
    with log.open("w") as out:
        process = subprocess.Popen(arguments, cwd=ROOT, stdout=out, stderr=subprocess.STDOUT)
    try:
        _wait(url, process, log)
        yield url, log
    finally:
        process.terminate()
        process.wait(timeout=60)


def _wait(url, process, log):
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline and process.poll() is None:
        try:
            if httpx.get(f"{url}/ok").is_success:
                return
        except httpx.TransportError:
            time.sleep(0.5)
    pytest.fail(log.read_text())


@pytest.fixture
def client(server):
    return get_client(url=server[0])


async def test_a_question_is_answered_with_sources(client):
    told = await client.runs.wait(None, "dynamic_rag", input={"question": QUESTION})
    assert told["answer"]
    assert "Tarn Ellis" in [source["title"] for source in told["sources"]]
    assert told["warnings"] == []


async def test_events_are_streamed_and_the_context_is_taken(client):
    thread = await client.threads.create()
    asked = {"messages": [{"role": "user", "content": QUESTION}]}
    seen = Counter()
    async for part in client.runs.stream(
        thread["thread_id"], "dynamic_rag", input=asked, stream_mode=["custom"], context={"k": 1}
    ):
        if part.event == "custom":
            seen[part.data["type"]] += 1
            if part.data["type"] == "retrieval":
                assert len(part.data["documents"]) == 1
    assert seen["token"] > 1
    assert seen["retrieval"] >= 1
    state = await client.threads.get_state(thread["thread_id"])
    assert state["values"]["question"] == QUESTION
    assert state["values"]["messages"][-1]["type"] == "ai"


async def test_a_run_stops_before_a_search_and_continues(client):
    thread = (await client.threads.create())["thread_id"]
    await client.runs.wait(thread, "dynamic_rag", input={"question": QUESTION}, interrupt_before=["retrieve"])
    state = await client.threads.get_state(thread)
    assert state["next"] == ["retrieve"]
    assert state["values"]["queries"] == [QUESTION]
    assert (await client.runs.wait(thread, "dynamic_rag", input=None))["answer"]


async def test_wrong_input_is_an_error_that_says_what_is_needed(client):
    told = await client.runs.wait(None, "dynamic_rag", input={"question": 3}, raise_error=False)
    assert told["__error__"]["message"] == "the question is 3 (int); a text is needed"


def test_nothing_blocked_the_server(server):
    """The server raises an error where code blocks its event loop."""
    assert "BlockingError" not in server[1].read_text()
