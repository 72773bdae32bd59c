"""Files that were read become documents, and documents chunks."""

import pytest

from langgraph_dynrag.retrieval import Splitter
from rag_backbone.errors import ConfigurationError


def test_a_splitter_with_too_large_an_overlap_is_refused():
    with pytest.raises(ConfigurationError, match="cannot overlap by 900"):
        Splitter(900, 900)
