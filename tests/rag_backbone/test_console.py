"""What the command line shows, on which stream, and how it exits; in any encoding."""

import io
import json
import logging
import subprocess
import sys

import pytest
import typer
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from rag_backbone import console
from rag_backbone.cli import build_app
from rag_backbone.errors import ConfigurationError, DynPragError
from rag_backbone.notices import NOTICE

ENCODINGS = ["utf-8", "cp1252", "cp437", "ascii", "cp932", "koi8-r"]


@pytest.fixture(autouse=True)
def _fresh():
    before = (console.console().verbose, console.console().quiet, console.console().debug)
    console.console().verbose = console.console().quiet = console.console().debug = False
    yield
    console.console().verbose, console.console().quiet, console.console().debug = before


@given(text=st.text(alphabet=st.characters()), encoding=st.sampled_from(ENCODINGS))
@settings(max_examples=60)
def test_every_text_can_be_printed_in_every_encoding(text, encoding):
    out, err = (io.TextIOWrapper(io.BytesIO(), encoding=encoding, errors="strict") for _ in "ab")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stdout", out)
        patch.setattr(sys, "stderr", err)
        console.encode_anything()
        typer.echo(text + "\ud800")
        sys.stderr.write(f"error: {text}\n")
        line = console.as_json({"answer": text})
        line.encode(encoding)
    assert json.loads(line) == {"answer": text}


def test_json_stays_readable_if_the_encoding_allows_it(monkeypatch):
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO(), encoding="utf-8"))
    assert "東京" in console.as_json(["東京"])


@pytest.mark.parametrize(
    ("error", "line", "code"),
    [
        (ConfigurationError("k is 0;\n  at least 1 is needed"), "error: k is 0; at least 1 is needed\n", 2),
        (PermissionError(13, "Permission denied", "/x"), "error: [Errno 13] Permission denied: '/x'\n", 2),
        (ConfigurationError(), "error: ConfigurationError\n", 2),
        (KeyboardInterrupt(), "interrupted\n", 130),
    ],
)
def test_errors_and_interrupts_are_one_line_with_an_exit_code(capsys, error, line, code):
    with pytest.raises(SystemExit) as ended, console.ending(DynPragError):
        raise error
    assert (capsys.readouterr().err, ended.value.code) == (line, code)


def test_a_bug_keeps_its_traceback():
    with pytest.raises(ZeroDivisionError), console.ending(DynPragError):
        raise ZeroDivisionError


@pytest.mark.parametrize("way", ["--debug", "DYNPRAG_DEBUG"])
def test_the_traceback_is_shown_on_request(capsys, monkeypatch, way):
    if way != "--debug":
        monkeypatch.setenv(way, "1")
    console.start(verbose=False, quiet=False, debug=way == "--debug")
    with pytest.raises(SystemExit), console.ending(DynPragError):
        raise ConfigurationError("k is 0")
    assert "Traceback" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "level", "extra", "shown"),
    [  # by default, with --quiet, with --verbose
        ("llamaindex_prag.parametrize", logging.WARNING, None, (True, True, True)),
        ("llamaindex_prag.parametrize", logging.INFO, NOTICE, (True, False, True)),
        ("llamaindex_prag.parametrize", logging.INFO, None, (False, False, True)),
        ("py.warnings", logging.WARNING, None, (True, False, True)),
        ("chromadb", logging.ERROR, None, (True, True, True)),
        ("bm25s", logging.DEBUG, None, (False, False, False)),
    ],
)
def test_log_records_are_shown_according_to_the_options(name, level, extra, shown):
    record = logging.getLogger(name).makeRecord(name, level, "f", 1, "m", (), None, extra=extra)
    runs = [console.Console(), console.Console(quiet=True), console.Console(verbose=True)]
    assert tuple(run.accepts(record) for run in runs) == shown


@pytest.mark.parametrize("text", ["", " ", "\n"])
@pytest.mark.parametrize("command", [["index"], ["parametrize"], ["store", "remove"], ["index", "x", "--index"]])
def test_a_blank_argument_is_not_the_current_folder(command, text, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "private.md").write_text("A note.")
    result = CliRunner().invoke(build_app(), [*command, text])
    assert result.exit_code == 2
    assert "it is empty" in result.stderr
    assert sorted(p.name for p in tmp_path.iterdir()) == ["private.md"]


def test_a_closed_pipe_is_not_an_error():
    command = f"{sys.executable} -m rag_backbone.cli --help | true"
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=False)
    assert done.stderr == ""


def test_what_others_write_meanwhile_goes_to_stderr_and_the_result_to_stdout():
    program = (
        "import os, subprocess, sys\n"
        "from rag_backbone.console import stdout_to_stderr\n"
        "print('before')\n"
        "with stdout_to_stderr():\n"
        "    print('python')\n"
        "    os.write(1, b'library\\n')\n"
        "    subprocess.run([sys.executable, '-c', 'print(\"child\")'])\n"
        "print('after')\n"
    )
    told = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert told.stdout.split() == ["before", "after"]
    assert sorted(told.stderr.split()) == ["child", "library", "python"]
