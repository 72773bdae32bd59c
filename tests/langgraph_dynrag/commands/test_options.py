"""Options that several commands share."""

import subprocess
import sys

import pytest
import typer

from langgraph_dynrag import LocalChatModel
from langgraph_dynrag.commands.options import chat_of, known_preset
from rag_backbone.errors import ConfigurationError, MissingExtraError
from tests.langgraph_dynrag.commands.command import QUESTION, run


def test_an_unknown_preset_lists_the_known_ones(index):
    result = run("ask", QUESTION, "--preset", "flair", code=2)
    for name in ("no_retrieval", "flare", "dragin", "etc"):
        assert name in result.output


def test_the_process_says_one_line_and_exits_with_two(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "rag_backbone.cli", "index", str(tmp_path / "nowhere")],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )
    assert done.returncode == 2
    assert done.stderr.strip() == f"error: there is no file or folder {tmp_path / 'nowhere'}"
    assert not (tmp_path / ".dynprag").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--base-url", "http://localhost:1/v1"), "needs --model NAME"),
        (("--base-url", "localhost:8000", "--model", "m"), "http:// or https://"),
        (("--base-url", "http://:8000", "--model", "m"), "http:// or https://"),
        (("--base-url", "http://me:pass@localhost/v1", "--model", "m"), "holds a user or a password"),
        (("--base-url", "https://api.openai.com/v1", "--model", "gpt-x"), r"\$OPENAI_API_KEY is not set"),
        (
            ("--base-url", "http://localhost:1/v1", "--model", "m", "--injection", "combined", "--translator", "t"),
            "leave out --base-url or --translator",
        ),
        (("--model", " "), "--model is empty"),
    ],
)
def test_a_server_that_cannot_be_asked_is_refused_in_words(options, message, index, monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with pytest.raises(ConfigurationError, match=message) as refused:
        run("ask", QUESTION, "--index", str(index), *options)
    assert "pass@" not in str(refused.value)


def test_the_missing_client_of_a_server_is_named(index, monkeypatch):
    monkeypatch.setitem(sys.modules, "langchain_openai", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'dynprag\[openai\]'"):
        run("ask", QUESTION, "--index", str(index), "--base-url", "http://localhost:1/v1", "--model", "m")


def test_quiet_before_or_after_the_command_prints_the_answer_alone(index, model):
    options = ("ask", QUESTION, "--model", str(model), "--index", str(index), "--preset", "single", "--max-tokens", "8")
    before, after = run("-q", *options), run(*options, "-q")
    assert before.stdout == after.stdout
    assert before.stderr == after.stderr == ""
    assert len(before.stdout.splitlines()) == 1 or before.stdout.count("[1]") == 0


def test_the_model_is_local_unless_a_server_is_named(monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    local = chat_of("/nowhere/at/all", None)
    assert (type(local), local.model) == (LocalChatModel, "/nowhere/at/all")  # nothing is loaded yet
    served = chat_of("base", " http://localhost:1/v1 ")
    assert (served.model_name, str(served.root_client.base_url)) == ("base", "http://localhost:1/v1/")
    assert served.root_client.api_key == "none"
    monkeypatch.setenv("OPENAI_API_KEY", " s3cret ")
    assert chat_of("base", "https://api.openai.com/v1").root_client.api_key == "s3cret"


def test_presets_are_known_by_name_or_are_files():
    for name in (None, "flare", "mine.json"):
        assert known_preset(name) == name
    with pytest.raises(typer.BadParameter, match="'flair' is none of no_retrieval, .*no preset file"):
        known_preset("flair")
