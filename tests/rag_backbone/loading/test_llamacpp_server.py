"""What a llama.cpp server refuses before it starts; `tests/llamacpp` runs real ones."""

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


@pytest.mark.parametrize("option", ["context_window", "parallel", "threads"])
def test_numbers_below_one_are_refused(option):
    with pytest.raises(ConfigurationError, match=f"{option} is 0; at least 1 is needed"):
        LlamaCppServer("embedded", **{option: 0})
