"""Augmentations as plain data."""

import json

import pytest

from llamaindex_prag.augment.augmentation import QA, Augmentation
from rag_backbone.errors import ConfigurationError

GIVEN = Augmentation(
    "In other words.",
    (QA("Who?", "Ana", "It was Ana.", "facts", "model", False), QA("When?", "1871")),
    ("rewrite: late",),
)


def test_an_augmentation_survives_json():
    assert Augmentation.from_dict(json.loads(json.dumps(GIVEN.to_dict()))) == GIVEN
    assert GIVEN.sources == {"model": 1, "given": 1}
    assert GIVEN.grounded == GIVEN.qas[1:]


def test_a_precomputed_augmentation_needs_only_questions():
    given = Augmentation.from_dict({"qas": [{"question": "Who?", "answer": "Ana"}]})
    assert given == Augmentation(None, (QA("Who?", "Ana", source="given"),))


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ([], "is not an augmentation"),
        ({}, "qas is missing"),
        ({"qas": []}, "at least one question"),
        ({"qas": "Who?"}, "must be a list"),
        ({"qas": ["Who?"]}, "is not a question"),
        ({"qas": [{"question": "Who?"}]}, "answer is missing"),
        ({"qas": [{"question": "Who?", "answer": 3}]}, "must be a str"),
        ({"qas": [{"question": "Who?", "answer": " "}]}, "is blank"),
        ({"qas": [{"question": "Who?", "answer": "Ana", "source": "web"}]}, "known: model, cloze"),
        ({"qas": [{"question": "Who?", "answer": "Ana", "answer_grounded": "yes"}]}, "must be a bool"),
        ({"qas": [{"question": "Who?", "answer": "Ana", "lang": "en"}]}, "lang is unknown"),
        ({"qas": [{"question": "Who?", "answer": "Ana"}], "rewrite": ""}, "rewrite is blank"),
        ({"qas": [{"question": "Who?", "answer": "Ana"}], "rewrite": 1}, "must be a text or null"),
        ({"qas": [{"question": "Who?", "answer": "Ana"}], "notes": "late"}, "list of texts"),
        ({"qas": [{"question": "Who?", "answer": "Ana"}], "summary": ""}, "summary is unknown"),
    ],
)
def test_invalid_augmentations_are_refused_with_the_reason(data, said):
    with pytest.raises(ConfigurationError, match=said):
        Augmentation.from_dict(data)
