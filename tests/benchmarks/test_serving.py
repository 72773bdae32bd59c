"""The benchmark of a vLLM server: its counters, the comparison of methods, and what is refused before it starts."""

import signal
import socket
import subprocess
import sys
import time

import pytest

from benchmarks.serving import comparisons, main
from benchmarks.vllm_counters import Counters
from benchmarks.vllm_server import COMMAND, VLLMServer
from rag_backbone.errors import ConfigurationError, ServerError, ServerUnavailableError

METRICS = """\
# HELP vllm:prompt_tokens_total Number of prefill tokens processed.
# TYPE vllm:prompt_tokens_total counter
vllm:prompt_tokens_total{engine="0",model_name="base"} 1.5e+03
vllm:prompt_tokens_total{engine="1",model_name="a } b"} 500.0
vllm:prompt_tokens_created{engine="0",model_name="base"} 1.7e+09
vllm:prefix_cache_queries_total{engine="0",model_name="base"} 2000.0
vllm:prefix_cache_hits_total{engine="0",model_name="base"} 1600.0
vllm:generation_tokens_total{engine="0",model_name="base"} 90.0
vllm:time_to_first_token_seconds_bucket{engine="0",le="0.001"} 0.0
vllm:time_to_first_token_seconds_count{engine="0"} 4.0
vllm:time_to_first_token_seconds_sum{engine="0"} 2.5
"""


def test_counters_are_added_up_over_engines_and_subtracted():
    found = Counters.parse(METRICS)
    assert found == Counters(
        prompt=2000, looked_up=2000, cached=1600, generated=90, requests=4, first_token_seconds=2.5
    )
    assert found - found == Counters(0, 0, 0, 0, 0, 0)


def test_a_missing_counter_is_named():
    with pytest.raises(ServerError, match="lack vllm:generation_tokens_total; vLLM 0.32"):
        Counters.parse("\n".join(line for line in METRICS.splitlines() if "generation" not in line))


def row(cache, method, sessions, seconds):
    return {"cache": cache, "method": method, "sessions": sessions, "questions/s": 1 / seconds}


def test_the_comparison_matches_a_worked_example():
    # Without a cache flare takes 3 s more than single's 2 s, with one 1 s more than single's 1 s.
    rows = [row("on", "single", 8, 1), row("on", "flare", 8, 2), row("off", "single", 8, 2), row("off", "flare", 8, 5)]
    (found,) = comparisons([*rows, row("on", "injected", 8, 9)])
    assert found == pytest.approx({"sessions": 8, "on": 2, "off": 2.5, "given_back": 2 / 3})


def test_a_missing_cell_leaves_its_figures_out():
    assert comparisons([row("on", "single", 1, 1), row("on", "flare", 1, 2)]) == [
        {"sessions": 1, "on": 2, "off": None, "given_back": None}
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--questions", "8", "--sessions", "1", "32"], "at least the number of sessions, 32"),
        (["--questions", "99"], "less than 70"),
        (["--alone", "0"], "--alone is 0; it must be between 1 and --questions, 32"),
    ],
)
def test_options_that_do_not_fit_together_are_refused(arguments, message, monkeypatch, capsys):
    monkeypatch.setenv(COMMAND, "vllm serve {model} --port {port}")
    with pytest.raises(SystemExit):
        main(arguments)
    assert message in capsys.readouterr().err


def test_without_a_command_the_variable_is_named(monkeypatch, capsys):
    monkeypatch.delenv(COMMAND, raising=False)
    with pytest.raises(SystemExit):
        main([])
    assert f"{COMMAND} is not set" in capsys.readouterr().err


def test_a_command_without_a_placeholder_is_refused(tmp_path):
    with pytest.raises(ConfigurationError, match="lacks {port}"):
        VLLMServer("vllm serve {model}", "m", tmp_path / "log")


def test_a_server_that_exits_says_why_and_options_may_contain_braces(tmp_path):
    command = """sh -c 'echo "$0 $1 $2 $3"; exit 3' {model} {port} '{"a": 1}'"""
    server = VLLMServer(command, "MODEL", tmp_path / "log", options=["--last"])
    with pytest.raises(ServerUnavailableError, match=rf'MODEL {server.port} {{"a": 1}} --last'), server:
        pass


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_the_server_ends_with_the_benchmark(tmp_path, how):
    (tmp_path / "v1").mkdir()
    (tmp_path / "v1/models").write_text("{}")
    command = f"{sys.executable} -m http.server {{port}} --bind 127.0.0.1 --directory {{model}}"
    program = (
        "import time\nfrom pathlib import Path\nfrom benchmarks.vllm_server import VLLMServer\n"
        f"with VLLMServer({command!r}, {str(tmp_path)!r}, Path({str(tmp_path / 'log')!r})) as server:\n"
        "    print(server.port, flush=True)\n"
        "    time.sleep(600)\n"
    )
    owner = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    address = "127.0.0.1", int(owner.stdout.readline())
    socket.create_connection(address).close()
    owner.send_signal(how)
    owner.communicate(timeout=60)
    until = time.monotonic() + 60
    with pytest.raises(ConnectionRefusedError):
        while time.monotonic() < until:
            socket.create_connection(address).close()
            time.sleep(0.05)
