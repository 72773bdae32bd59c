"""A tiny model, a few passages with questions, and a separate cache, to run benchmarks end to end."""

import json

import pytest

from tests.tiny import tiny_folder

PLACES = ("Lodmoor", "Brannoch", "Tarn Ellis", "Vold")


@pytest.fixture(scope="session")
def model(tmp_path_factory):
    return tiny_folder(tmp_path_factory.mktemp("model"))


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("DYNPRAG_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def squad(tmp_path):
    """Write a SQuAD file with four paragraphs and one question about each."""
    path = tmp_path / "squad.json"
    paragraphs = [
        {
            "context": f"The ferry of {place} has {60 + i} cabins. She was built in {1970 + i} at the yard in {place}.",
            "qas": [{"question": f"When was the ferry of {place} built?", "answers": [{"text": str(1970 + i)}]}],
        }
        for i, place in enumerate(PLACES)
    ]
    path.write_text(json.dumps({"data": [{"title": "Ferries", "paragraphs": paragraphs}]}))
    return path
