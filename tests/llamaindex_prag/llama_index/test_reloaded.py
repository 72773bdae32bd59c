"""An index whose deletions would not reach the adapters is logged when it is first searched."""

import logging

from llamaindex_prag.llama_index import ParametricNodePostprocessor
from tests.llamaindex_prag.llama_index.indexes import build, deleted_plainly, reload


def test_a_plainly_loaded_index_is_logged_when_it_is_first_searched(llm, tmp_path, caplog):
    build(llm, tmp_path / "index", 0, 1)
    deleted_plainly(tmp_path / "index", 0)
    index = reload(tmp_path / "index")
    engine = index.as_query_engine(
        llm=llm, similarity_top_k=1, node_postprocessors=[ParametricNodePostprocessor(llm=llm)]
    )
    with caplog.at_level(logging.WARNING, "llamaindex_prag"):
        engine.query("Who wrote?")
        engine.query("Who wrote?")
    told = [r.getMessage() for r in caplog.records if "dynprag store gc" in r.getMessage()]
    assert len(told) == 2
    assert "doc-0" in told[0]
    assert "ParametricDocumentStore.from_persist_dir" in told[1]
