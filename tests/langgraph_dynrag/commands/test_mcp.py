"""`dynprag mcp`, as agents start it: over stdio, and over HTTP on localhost."""

import json
import os
import re
import socket
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from langchain_mcp_adapters.client import MultiServerMCPClient
from mcp import ClientSession, StdioServerParameters
from mcp.client.stdio import stdio_client

from rag_backbone.errors import ConfigurationError, DynPragError
from tests.langgraph_dynrag.commands.command import QUESTION, run
from tests.langgraph_dynrag.mcp.served import TOKEN, http_client, text_of

ROOT = Path(__file__).parents[3]
COMMAND = ["-m", "rag_backbone.cli", "mcp"]


@contextmanager
def started(*arguments, **environment):
    """Start a server over HTTP on a free port; yields its address."""
    command = [sys.executable, *COMMAND, "--transport", "http", "--port", "0", *arguments]
    process = subprocess.Popen(
        command, cwd=ROOT, env={**os.environ, **environment}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        told = []
        for line in process.stderr:
            told.append(line)
            if found := re.search(r"at (http://\S+)", line):
                yield found[1]
                break
        else:
            pytest.fail("".join(told))
    finally:
        process.terminate()
        out, _ = process.communicate(timeout=30)
        assert out == ""


async def test_an_agent_starts_the_server_and_speaks_to_it_over_stdio(index, model):
    arguments = [*COMMAND, "--index", str(index), "--model", str(model), "--preset", "single", "--max-tokens", "12"]
    asked = StdioServerParameters(command=sys.executable, args=arguments, env=dict(os.environ), cwd=ROOT)
    async with stdio_client(asked) as (read, write), ClientSession(read, write) as client:
        assert (await client.initialize()).serverInfo.name == "dynprag"
        assert {tool.name for tool in (await client.list_tools()).tools} == {"search", "answer"}
        found = await client.call_tool("search", {"query": "Cooper's Bridge", "k": 1})
        assert [p["source"] for p in found.structuredContent["passages"]] == ["bridge.md"]
        told = (await client.call_tool("answer", {"question": QUESTION})).structuredContent
        assert told["answer"]
        assert told["searches"][0]["query"] == QUESTION
        refused = await client.call_tool("answer", {"question": "x" * 3000})
        assert "at most 2000" in text_of(refused)


def test_nothing_but_the_protocol_is_on_stdout(tmp_path):
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "a.txt").write_text("The river Tamsin crosses Brannoch.")
    asked = [
        {
            "id": 1,
            "method": "initialize",
            "params": {
                "protocolVersion": "2025-06-18",
                "capabilities": {},
                "clientInfo": {"name": "test", "version": "1"},
            },
        },
        {"method": "notifications/initialized"},
        {"id": 2, "method": "tools/list"},
    ]
    with subprocess.Popen(
        [sys.executable, *COMMAND, "--search-only", "-d", str(tmp_path / "notes"), "-i", str(tmp_path / "index")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    ) as server:
        server.stdin.write("".join(json.dumps({"jsonrpc": "2.0", **message}) + "\n" for message in asked))
        server.stdin.flush()
        lines = [server.stdout.readline(), server.stdout.readline()]  # the end of stdin would cut off the second one
        rest, errors = server.communicate()
    assert rest == ""
    replies = [json.loads(line) for line in lines]
    assert [reply["id"] for reply in replies] == [1, 2], errors
    assert [tool["name"] for tool in replies[1]["result"]["tools"]] == ["search"]
    assert "1 files added" in errors


async def test_a_server_over_http_asks_for_its_token(index, tmp_path):
    file = tmp_path / "token"
    file.write_text(TOKEN + "\n")
    with started("--index", str(index), "--search-only", "--host", "0.0.0.0", "--token-file", str(file)) as url:
        assert httpx.get(url.replace("/mcp", "/health")).json() == {"status": "ok"}
        assert httpx.post(url, json={}).status_code == 401
        assert httpx.post(url, json={}, headers={"Authorization": "Bearer wrong"}).status_code == 401
        async with http_client(url, TOKEN) as client:
            found = await client.call_tool("search", {"query": "river"})
            assert found.structuredContent["passages"]
        connection = {"url": url, "transport": "http", "headers": {"Authorization": f"Bearer {TOKEN}"}}
        (tool,) = await MultiServerMCPClient({"notes": connection}).get_tools()
        assert "Tamsin" in str(await tool.ainvoke({"query": "river", "k": 1}))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--transport", "http", "--host", "0.0.0.0"), "a token is needed: --token-file FILE or"),
        (("--transport", "http", "--token-file", "/nowhere/token"), "cannot be read"),
        (("--transport", "http", "--max-running", "0"), "running is 0"),
        (("--host", "0.0.0.0", "--port", "1"), "--host, --port: only used with --transport http"),
        (("--token-file", "/nowhere/token"), "--token-file: only used with --transport http"),
        (("--search-only", "--preset", "dragin", "--max-tokens", "5"), "--preset, --max-tokens: not used with"),
        (("--search-only",), "is empty; fill it first: dynprag index"),
        (("--documents", "/nowhere/at/all"), "no file or folder"),
        (("--threshold", "7"), "7"),
    ],
)
def test_mistakes_are_explained(arguments, message, tmp_path, monkeypatch):
    monkeypatch.delenv("DYNPRAG_MCP_TOKEN", raising=False)
    with pytest.raises(DynPragError, match=message):
        run("mcp", "--index", str(tmp_path / "new"), *arguments)


def test_a_token_is_taken_from_the_environment_and_never_shown(tmp_path, monkeypatch):
    monkeypatch.setenv("DYNPRAG_MCP_TOKEN", "too short")
    with pytest.raises(ConfigurationError, match="has 9 characters") as caught:
        run("mcp", "--index", str(tmp_path / "new"), "--transport", "http")
    assert "too short" not in str(caught.value)


def test_a_port_that_is_taken_is_an_error_before_anything_is_indexed(index, tmp_path):
    (tmp_path / "note.txt").write_text("The bridge has 41 arches.", "utf-8")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        options = ("--transport", "http", "--port", port, "--documents", str(tmp_path / "note.txt"))
        with pytest.raises(ConfigurationError, match=f"cannot listen on host 127.0.0.1, port {port}: .* in use"):
            run("mcp", "--index", str(tmp_path / "new"), "--search-only", *options)
    assert not (tmp_path / "new").exists()


def test_a_host_that_is_not_this_machine_is_an_error(index, monkeypatch):
    monkeypatch.setenv("DYNPRAG_MCP_TOKEN", TOKEN)
    options = ("--transport", "http", "--host", "127.0.0.1.invalid", "--port", "0")
    with pytest.raises(ConfigurationError, match="cannot listen on host 127.0.0.1.invalid, port 0: .*; give"):
        run("mcp", "--index", str(index), "--search-only", *options)
