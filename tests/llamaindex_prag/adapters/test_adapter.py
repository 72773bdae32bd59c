"""Adapters and their keys: what identifies one, and values that training cannot have produced."""

import hashlib

import numpy as np
import pytest

from llamaindex_prag.adapters.adapter import Adapter, AdapterKey, text_hash
from llamaindex_prag.adapters.layout import Layout, Target
from rag_backbone.errors import AdapterError

LAYOUT = Layout((Target("one", 3, 5),), 2)
ZEROS = np.zeros(LAYOUT.size, np.float32)


def test_a_passage_is_identified_by_the_sha_256_of_its_stripped_text():
    assert text_hash(" naïve 東京\n") == hashlib.sha256("naïve 東京".encode()).hexdigest()
    assert text_hash("a  b") != text_hash("a b")


def test_a_key_has_one_digest_of_model_recipe_and_text():
    key = AdapterKey("m", "r", "t")
    assert key.digest == hashlib.sha256(b"m/r/t").hexdigest()
    assert len({key.digest, AdapterKey("m", "t", "r").digest, AdapterKey("r", "m", "t").digest}) == 3


@pytest.mark.parametrize(
    ("buffer", "scale", "reason"),
    [
        (ZEROS[:-1], 1.0, r"needs 16 float32 values; the buffer has shape \(15,\)"),
        (ZEROS.astype(np.float64), 1.0, "of float64"),
        (np.r_[ZEROS[:-2], np.float32([np.nan, np.inf])], 1.0, "2 values that are not finite"),
        (ZEROS, 0.0, "scale is 0.0"),
        (ZEROS, -1.0, "scale is -1.0"),
        (ZEROS, float("nan"), "scale is nan"),
        (ZEROS, float("inf"), "scale is inf"),
    ],
)
def test_values_that_training_cannot_produce_are_refused(buffer, scale, reason):
    with pytest.raises(AdapterError, match=reason):
        Adapter(LAYOUT, buffer, scale).check()


def test_plain_values_pass_the_check():
    adapter = Adapter(LAYOUT, ZEROS, 0.5)
    adapter.check()
    assert repr(adapter) == "Adapter(Layout(1 layers, rank 2, 16 values), scale 0.5)"
