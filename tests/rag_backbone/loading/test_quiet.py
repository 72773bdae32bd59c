"""Other libraries print and log nothing next to our results, and importing this project configures no logging."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import rag_backbone.loading.quiet as quiet_loading
from rag_backbone.loading.minilm import MiniLM
from rag_backbone.loading.quiet import quiet_conversion

INDEX = """
import logging, sys
{before}
logging.basicConfig(level=logging.{level}, stream=sys.stdout, format="%(name)s %(levelname)s")
from langchain_core.documents import Document
from langgraph_dynrag.retrieval.bm25 import BM25Retriever
from rag_backbone.text.units import stop_words
stop_words()
found = BM25Retriever.from_documents([Document("The Wuerm is a river.")], k=1).invoke("river")
assert len(found) == 1
print("level", logging.getLogger("bm25s").level, "root", logging.root.level)
"""


def output(script):
    # Commands called by other tests in this process have disabled the bars for child processes.
    environment = {name: value for name, value in os.environ.items() if name != "HF_HUB_DISABLE_PROGRESS_BARS"}
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False, cwd=Path.cwd(), env=environment
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip().splitlines()


def test_a_bm25_index_does_not_log_debug_lines_in_an_application():
    assert output(INDEX.format(level="INFO", before="")) == ["level 0 root 20"]


def test_the_level_that_an_application_set_for_bm25s_is_kept():
    chosen = 'logging.getLogger("bm25s").setLevel(logging.ERROR)'
    assert output(INDEX.format(level="DEBUG", before=chosen))[-1] == "level 40 root 10"


def test_importing_the_packages_configures_no_logging():
    script = """
import logging
import rag_backbone, langgraph_dynrag, llamaindex_prag, langgraph_dynrag.cli, llamaindex_prag.cli
import langgraph_dynrag.retrieval.bm25
ours = [name for name in logging.Logger.manager.loggerDict
        if name.partition(".")[0] in ("rag_backbone", "langgraph_dynrag", "llamaindex_prag", "bm25s")]
for name in ours:
    logger = logging.getLogger(name)
    print(name, logger.level, logger.handlers, logger.propagate)
print(logging.root.level, logging.root.handlers)
"""
    lines = output(script)
    assert lines[-1] == "30 []"
    assert {line.partition(" ")[2] for line in lines[:-1]} == {"0 [] True"}


def test_the_gguf_loader_shows_no_bar_and_is_restored_afterwards(capsys):
    from transformers import modeling_gguf_pytorch_utils as loader

    before = loader.tqdm
    with quiet_conversion():
        assert list(loader.tqdm(range(3), desc="Converting")) == [0, 1, 2]
    assert capsys.readouterr().err == ""
    assert loader.tqdm is before


@pytest.mark.parametrize("shown", [True, False])
def test_the_users_progress_bar_setting_survives_loading(shown):
    from transformers.utils import logging as transformers_logging

    before = transformers_logging.is_progress_bar_enabled()
    (transformers_logging.enable_progress_bar if shown else transformers_logging.disable_progress_bar)()
    try:
        with pytest.raises(OSError, match="no file"), quiet_loading.quiet_loading():
            assert not transformers_logging.is_progress_bar_enabled()
            raise OSError("no file")
        assert transformers_logging.is_progress_bar_enabled() is shown
    finally:
        (transformers_logging.enable_progress_bar if before else transformers_logging.disable_progress_bar)()


def test_embedding_texts_keeps_the_users_progress_bars_enabled():
    from transformers.utils import logging as transformers_logging

    before = transformers_logging.is_progress_bar_enabled()
    transformers_logging.enable_progress_bar()
    try:
        MiniLM().embed(["a"])  # loads the model
        assert transformers_logging.is_progress_bar_enabled()
    finally:
        (transformers_logging.enable_progress_bar if before else transformers_logging.disable_progress_bar)()
