"""The graph for LangGraph Studio and `langgraph dev`; `langgraph.json` names it.

It answers from the example's documents. Point `DYNPRAG_DOCUMENTS` at a folder of your own to ask that instead.
"""

import os
from pathlib import Path

from langgraph_dynrag import LocalChatModel, LocalIndex, create_dynamic_rag

documents = Path(os.environ.get("DYNPRAG_DOCUMENTS", Path(__file__).parent / "data" / "corpus.jsonl"))
index = LocalIndex(Path(".dynprag") / "studio")
index.ingest(documents)
graph = create_dynamic_rag(LocalChatModel(), index.as_retriever("hybrid"), preset="flare")
