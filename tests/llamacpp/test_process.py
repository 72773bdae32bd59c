"""The process in which a llama.cpp server runs: it ends with its owner, and its own end is told."""

import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request

import pytest

from rag_backbone.errors import ModelLoadError, ServerError
from rag_backbone.loading.llamacpp_server import LlamaCppServer

pytestmark = pytest.mark.llamacpp


def answers(base_url):
    try:
        with urllib.request.urlopen(f"{base_url}/models", timeout=5):
            return True
    except (urllib.error.URLError, ConnectionError):
        return False


def silent(base_url, seconds=20):
    until = time.monotonic() + seconds
    while answers(base_url):
        assert time.monotonic() < until
        time.sleep(0.1)


def test_it_ends_when_the_process_that_started_it_is_killed():
    command = [sys.executable, "-m", "tests.llamacpp.worker", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as owner:
        url = owner.stdout.readline().strip()
        assert answers(url)
        owner.kill()
    silent(url)


def test_it_ends_when_the_server_is_closed_or_forgotten(gguf_file):
    closed = LlamaCppServer(gguf_file, context_window=64, threads=1, parallel=1)
    process = closed._process
    closed.close()
    assert process.returncode == 0
    forgotten = LlamaCppServer(gguf_file, context_window=64, threads=1, parallel=1)
    process = forgotten._process
    del forgotten
    assert process.returncode == 0


def test_a_process_that_died_is_told_and_nothing_waits_for_it(server):
    os.kill(server._process.pid, signal.SIGKILL)
    server._process.wait()
    with pytest.raises(ServerError, match=r"ended by itself \(-9\); create another"), server.using():
        pass
    with pytest.raises(ServerError, match="ended by itself"):
        server.load([])


def test_a_process_that_dies_while_it_starts_is_an_error_of_the_model(gguf_file, monkeypatch, tmp_path):
    program = tmp_path / "dies.py"
    program.write_text("import os; os.abort()")
    monkeypatch.setattr("rag_backbone.loading.llamacpp_server._PROGRAM", program)
    with pytest.raises(ModelLoadError, match=r"cannot serve .*: its process ended \(-6\)"):
        LlamaCppServer(gguf_file)
