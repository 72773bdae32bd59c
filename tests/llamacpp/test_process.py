"""The process in which a llama.cpp server runs: it ends with its owner, and its own end is told."""

import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from llamaindex_prag.serving.llamacpp_model import LlamaCppModel
from rag_backbone.errors import ModelLoadError, ServerError
from rag_backbone.loading.llamacpp_server import LlamaCppServer
from tests.llamacpp.test_adapters import assert_alike, request_of

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


def runs(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.fixture
def program(tmp_path):
    """A program with the command line of `llama-server`, which is not installed everywhere."""
    path = tmp_path / "bin" / "llama-server"
    path.parent.mkdir()
    path.write_text(f"#!{sys.executable}\n" + Path(__file__).with_name("llama_server.py").read_text())
    path.chmod(0o755)
    return path


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
    monkeypatch.setattr("rag_backbone.loading.llamacpp_server._PACKAGE", program)
    with pytest.raises(ModelLoadError, match=r"cannot serve .*: its process ended \(-6\)"):
        LlamaCppServer(gguf_file)


def test_a_program_generates_what_the_local_engine_generates(
    gguf_file, program, lm, store, local, tmp_path, monkeypatch
):
    monkeypatch.setenv("PATH", str(program.parent), prepend=os.pathsep)
    own = {"program": "llama-server", "options": ["--seed", "7"]}
    with LlamaCppServer(gguf_file, context_window=512, threads=1, parallel=2, **own) as running:
        url = running.base_url
        served = LlamaCppModel(running, store, lm=lm, recipe="prag", max_adapters=3, folder=tmp_path / "files")
        for numbers in ((), (2, 1)):
            here = local.lm.engine.generate(request_of(local, numbers))
            assert_alike(here, served.lm.engine.generate(request_of(served, numbers)))
        assert (running.base_url, len(running.adapters)) == (url, 2)
        assert served.name == "tiny"
    silent(url)
    assert (program.parent / "arguments").read_text().split()[-2:] == ["--seed", "7"]


def test_a_program_ends_with_its_owner_or_says_how_it_ended(gguf_file, program):
    own = LlamaCppServer(gguf_file, program=program, context_window=64, threads=1, parallel=1)
    port = int(own.base_url.split(":")[2].split("/")[0])
    with pytest.raises(ModelLoadError, match=rf"on port {port}.*[Aa]ddress already in use"):
        LlamaCppServer(gguf_file, program=program, context_window=64, threads=1, port=port)
    os.kill(int((program.parent / "pid").read_text()), signal.SIGTERM)
    own._process.wait(20)
    with pytest.raises(ServerError, match="ended by itself"), own.using():
        pass
    with pytest.raises(ModelLoadError, match=r"llama-server ended \(3\)"):
        LlamaCppServer(gguf_file, program=program, options=["--no-such-option"])


def test_a_program_that_never_answers_is_ended(gguf_file, tmp_path, monkeypatch):
    silent_one = tmp_path / "sleeps"
    silent_one.write_text(f"#!/bin/sh\necho $$ > {tmp_path / 'pid'}\nexec sleep 600\n")
    silent_one.chmod(0o755)
    monkeypatch.setattr("rag_backbone.loading.llamacpp_server._PATIENCE", 1.0)
    with pytest.raises(ModelLoadError, match=r"sleeps did not answer on port \d+ within 1 seconds"):
        LlamaCppServer(gguf_file, program=silent_one)
    until = time.monotonic() + 20
    while runs(int((tmp_path / "pid").read_text())):
        assert time.monotonic() < until
        time.sleep(0.1)
