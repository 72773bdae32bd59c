"""The graph that `langgraph.json` names, for LangGraph Studio and `langgraph dev`.

It answers from the example documents, or from the file or folder that `DYNPRAG_DOCUMENTS` names.
"""

import os
from pathlib import Path

from langgraph_dynrag import LocalChatModel, LocalIndex, create_dynamic_rag

documents = Path(os.environ.get("DYNPRAG_DOCUMENTS", Path(__file__).parent / "data" / "corpus.jsonl"))
index = LocalIndex(Path(".dynprag") / "studio")
index.ingest(documents)
graph = create_dynamic_rag(LocalChatModel(), index.as_retriever("hybrid"), preset="flare")
