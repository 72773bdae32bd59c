"""The packages' public surface: what they export, and how fast they import."""

import subprocess
import sys

import pytest

import langgraph_dynrag
import langgraph_dynrag.retrieval
import llamaindex_prag
import rag_backbone


@pytest.mark.parametrize("package", [rag_backbone, langgraph_dynrag, langgraph_dynrag.retrieval, llamaindex_prag])
def test_every_exported_name_exists(package):
    for name in package.__all__:
        assert getattr(package, name) is not None
    assert set(package.__all__) <= set(dir(package))
    with pytest.raises(AttributeError, match="nonsense"):
        _ = package.nonsense


@pytest.mark.parametrize(
    "package",
    ["rag_backbone", "langgraph_dynrag", "langgraph_dynrag.retrieval", "llamaindex_prag", "rag_backbone.cli"],
)
def test_importing_a_package_imports_nothing_heavy(package):
    heavy = ["torch", "transformers", "chromadb", "llama_index", "langgraph", "langchain_core", "matplotlib"]
    code = f"import sys, {package}; print([m for m in {heavy} if m in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"
