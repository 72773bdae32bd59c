"""The flat layout of an adapter: where each factor lies, and which layouts are equal."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llamaindex_prag.adapters.layout import Layout, Target
from rag_backbone.errors import ConfigurationError

LAYOUT = Layout((Target("one", 3, 5), Target("two", 4, 2)), 2)
LAYOUTS = st.builds(
    Layout,
    st.lists(st.builds(Target, st.text(max_size=5), st.integers(1, 6), st.integers(1, 6)), min_size=1, max_size=4).map(
        tuple
    ),
    st.integers(1, 4),
)


def test_all_a_come_before_all_b():
    assert (LAYOUT.a_size, LAYOUT.size) == (2 * (3 + 4), 2 * (3 + 4 + 5 + 2))
    assert LAYOUT.a_offsets == (0, 6)
    assert LAYOUT.b_offsets == (14, 24)
    assert repr(LAYOUT) == "Layout(2 layers, rank 2, 28 values)"


def test_factors_are_views_and_b_is_stored_transposed():
    buffer = np.arange(28, dtype=np.float32)
    (_, a, b), (target, _, other) = LAYOUT.factors(buffer)
    assert a.tolist() == [[0, 1, 2], [3, 4, 5]]
    assert b.tolist() == [[14, 19], [15, 20], [16, 21], [17, 22], [18, 23]]
    assert (target.name, other.shape) == ("two", (2, 2))
    b[0, 1] = -1
    assert buffer[19] == -1


@given(LAYOUTS)
def test_factors_cover_the_buffer_without_overlapping(layout):
    buffer = np.zeros(layout.size, np.float32)
    for _, a, b in layout.factors(buffer):
        a[...] += 1
        b[...] += 1
    assert (buffer == 1).all()


@given(LAYOUTS)
def test_a_layout_survives_json_with_its_digest(layout):
    again = Layout.from_dict(json.loads(json.dumps(layout.to_dict())))
    assert again == layout
    assert again.digest == layout.digest


def test_the_digest_depends_on_rank_names_sizes_and_order():
    one, two = LAYOUT.targets
    others = [
        Layout(LAYOUT.targets, 3),
        Layout((two, one), 2),
        Layout((one,), 2),
        Layout((one, Target("two", 4, 3)), 2),
        Layout((one, Target("2", 4, 2)), 2),
    ]
    assert len({LAYOUT.digest, *(other.digest for other in others)}) == 6


@pytest.mark.parametrize("data", [{}, {"rank": 1, "targets": [["a", 1]]}, {"rank": "x", "targets": [["a", 1, 1]]}])
def test_other_data_are_refused(data):
    with pytest.raises(ConfigurationError, match="do not describe a layout"):
        Layout.from_dict(data)


def test_layouts_without_rank_or_layers_are_refused():
    with pytest.raises(ConfigurationError, match="rank is 0; at least 1"):
        Layout(LAYOUT.targets, 0)
    with pytest.raises(ConfigurationError, match="at least one target layer"):
        Layout((), 2)
