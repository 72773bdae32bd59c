"""What a llama.cpp server refuses before it starts; `tests/llamacpp` runs real ones."""

import sys

import pytest

from rag_backbone.errors import ConfigurationError
from rag_backbone.loading.embedded import embedded_gguf_file
from rag_backbone.loading.llamacpp_server import LlamaCppServer


def test_the_embedded_models_file_is_a_gguf_file():
    with embedded_gguf_file().open("rb") as file:
        assert file.read(4) == b"GGUF"
    assert embedded_gguf_file().stat().st_size > 9e7


def test_files_that_are_no_gguf_files_are_refused(tmp_path):
    pytest.importorskip("xllamacpp")  # asked for first
    with pytest.raises(ConfigurationError, match="nowhere.gguf cannot be read: No such file"):
        LlamaCppServer(tmp_path / "nowhere.gguf")
    (tmp_path / "text.gguf").write_text("text")
    with pytest.raises(ConfigurationError, match="text.gguf is no GGUF file: it begins with b'text'"):
        LlamaCppServer(tmp_path / "text.gguf")
    with pytest.raises(ConfigurationError, match="text.gguf is no GGUF file"):
        LlamaCppServer(embedded_gguf_file(), adapters=[tmp_path / "text.gguf"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"context_window": 0}, "context_window is 0; a number from 1 to"),
        ({"context_window": 2**40}, "context_window is 1099511627776; a number from 1 to 8388607 is needed"),
        ({"context_window": "4096"}, "context_window is '4096' .*; a whole number is needed"),
        ({"parallel": 0}, "parallel is 0; a number from 1 to"),
        ({"threads": 0}, "threads is 0; a number from 1 to"),
        ({"threads": 1.5}, "threads is 1.5 .*; a whole number is needed"),
        ({"port": 70000}, "port is 70000; a number from 0 to 65535 is needed"),
        ({"program": "no-such-llama-server"}, "program is 'no-such-llama-server', which is no program that can be run"),
        ({"program": sys.executable, "options": "-ngl 99"}, "options are '-ngl 99'; a list of strings is needed"),
        ({"program": sys.executable, "options": [99]}, r"options are \[99\]; a list of strings is needed"),
        ({"options": ["-ngl", "99"]}, r"options are \['-ngl', '99'\], for a program; pass program='llama-server'"),
    ],
)
def test_impossible_options_are_refused(options, message):
    with pytest.raises(ConfigurationError, match=message):
        LlamaCppServer("embedded", **options)
