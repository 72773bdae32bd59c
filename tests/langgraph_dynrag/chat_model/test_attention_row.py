"""Attention rows in the metadata of a reply."""

import numpy as np

from langgraph_dynrag.chat_model.attention_row import AttentionRow


def test_a_row_is_shown_by_its_shape_and_not_by_its_numbers():
    row = AttentionRow(np.zeros((4, 700), np.float32))
    assert repr(row) == "<attention row: 4 heads, 700 keys>"
    assert row.weights.shape == (4, 700)
