"""What is installed for a remote model only: no torch, and errors that say which extra to install."""

import subprocess
import sys
import textwrap
import tomllib
from pathlib import Path

import pytest

from rag_backbone.errors import MissingExtraError
from rag_backbone.extras import EXTRAS, needed_for

BLOCKED = """
import sys

class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"torch", "transformers", "accelerate", "gguf", "llama_index", "peft"}:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Missing())
"""


def run(code):
    return subprocess.run(
        [sys.executable, "-c", BLOCKED + textwrap.dedent(code)], capture_output=True, text=True, check=False
    )


def test_a_missing_package_names_its_extra():
    line = r"the plot needs matplotlib.*pip install 'dynprag\[viz\]'"
    with pytest.raises(MissingExtraError, match=line) as refused, needed_for("the plot"):
        raise ModuleNotFoundError("No module named 'matplotlib.pyplot'", name="matplotlib.pyplot")
    assert isinstance(refused.value, ImportError)


def test_a_package_of_no_extra_stays_the_error_that_it_was():
    with pytest.raises(ModuleNotFoundError, match="elsewhere"), needed_for("the plot"):
        raise ModuleNotFoundError("No module named 'elsewhere'", name="elsewhere")


def test_every_extra_that_errors_name_exists():
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text("utf-8"))["project"]
    assert set(EXTRAS.values()) <= set(project["optional-dependencies"])


def test_flare_runs_against_a_server_without_torch():
    """In this process nothing of torch can be imported; a server answers."""
    done = run(
        """
        from langchain_core.documents import Document
        from langchain_openai import ChatOpenAI
        from langgraph_dynrag import BM25Retriever, Trace, create_dynamic_rag
        from tests.openai_server import serving

        passages = [Document("The bridge of Orrow was built by Aldous Wray.")]
        with serving("It was built by Aldous Wray. So the answer is Aldous Wray.") as server:
            model = ChatOpenAI(base_url=server.url, model="base", api_key="none")
            graph = create_dynamic_rag(model, BM25Retriever.from_documents(passages), preset="flare")
            result = graph.invoke({"question": "Who built the bridge of Orrow?"})
        assert result["short_answer"] == "Aldous Wray", result["short_answer"]
        assert "torch" not in sys.modules
        print("ran", len(Trace.from_state(result).events) > 3)
        """
    )
    assert done.stdout.strip() == "ran True", done.stderr


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("from rag_backbone import CausalLM; CausalLM.from_pretrained('embedded')", "dynprag[local]"),
        ("from rag_backbone import Engine", "rag_backbone.Engine needs torch, which is not installed"),
        ("from langgraph_dynrag import LocalChatModel; LocalChatModel().invoke('hello')", "dynprag[local]"),
        ("from langgraph_dynrag import MiniLMEmbeddings; MiniLMEmbeddings().embed_query('a')", "dynprag[local]"),
        ("from llamaindex_prag import ParametricLLM", "dynprag[llamaindex]"),
        ("from llamaindex_prag import get_recipe; get_recipe('prag').to_lora_config()", "dynprag[peft]"),
    ],
)
def test_what_is_not_installed_says_which_extra_to_install(code, message):
    done = run(code)
    assert done.returncode != 0
    assert "MissingExtraError" in done.stderr
    assert message in done.stderr
