"""`pip install 'dynprag[langgraph,openai]'` into an empty environment: no torch, and FLARE against a server."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
RUN = """
import importlib.util, sys
sys.path.append(sys.argv[1])  # for the server of the tests
assert importlib.util.find_spec("torch") is None
from langchain_core.documents import Document
from langchain_openai import ChatOpenAI
from langgraph_dynrag import BM25Retriever, create_dynamic_rag
from tests.openai_server import serving
passages = [Document("The bridge of Orrow was built by Aldous Wray.")]
with serving("It was built by Aldous Wray. So the answer is Aldous Wray.") as server:
    model = ChatOpenAI(base_url=server.url, model="base", api_key="none")
    graph = create_dynamic_rag(model, BM25Retriever.from_documents(passages), preset="flare")
    print(graph.invoke({"question": "Who built the bridge of Orrow?"})["short_answer"])
"""


@pytest.mark.slow
def test_a_remote_model_needs_no_torch(tmp_path):
    subprocess.run([sys.executable, "-m", "venv", str(tmp_path / "venv")], check=True)
    python = str(tmp_path / "venv" / "bin" / "python")
    install = [python, "-m", "pip", "install", "--quiet", "-c", str(ROOT / "constraints.txt")]
    subprocess.run([*install, f"{ROOT}[langgraph,openai]"], check=True)
    done = subprocess.run([python, "-c", RUN, str(ROOT)], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.stdout.strip() == "Aldous Wray", done.stderr
