"""A real vLLM server with the embedded model, adapters trained for it, and the same model locally, in bfloat16.

DYNPRAG_VLLM_COMMAND   a command that starts a server in the foreground, with placeholders `{model}` (a folder) and
                       `{port}`; it needs --enable-lora, --max-lora-rank 64 and VLLM_ALLOW_RUNTIME_LORA_UPDATING=True
DYNPRAG_VLLM_PYTHON    the Python of the server's environment, for which the plugin is installed in a separate folder
DYNPRAG_VLLM_RESULTS   the JSON file to which measured figures are written
"""

import json
import os
import subprocess
from pathlib import Path

import pytest

from benchmarks.vllm_server import COMMAND, VLLMServer
from llamaindex_prag.adapters.adapter import text_hash
from llamaindex_prag.augment.augmentation import QA, Augmentation
from llamaindex_prag.parametric_model import ParametricModel
from llamaindex_prag.parametrize import Parametrizer
from llamaindex_prag.passages import Passage
from llamaindex_prag.serving.served_model import ServedModel
from llamaindex_prag.store.lmdb_store import LMDBStore
from rag_backbone.loading.causal_lm import CausalLM
from rag_backbone.loading.embedded import embedded_model_folder

ROOT = Path(__file__).parents[2]
DATA = ROOT / "examples" / "data"
SECRET = "a secret of the tests alone"
RECIPE = "prag"  # takes seconds per passage; the tests compare arithmetic, not what was learnt
TITLES = ("Tarn Ellis", "Odile Marrash", "Patient Anna", "Quillon", "Hesper Vane")


def _lines(name):
    return [json.loads(line) for line in (DATA / name).read_text().splitlines()]


@pytest.fixture(scope="session")
def command():
    given = os.environ.get(COMMAND)
    if not given:
        pytest.skip(f"{COMMAND} is not set: it starts a vLLM server (docs/vllm.md)")
    return given


@pytest.fixture(scope="session")
def passages():
    found = {row["title"]: row["text"] for row in _lines("corpus.jsonl")}
    return {title: found[title] for title in TITLES}


@pytest.fixture(scope="session")
def questions():
    """Return fifty questions: those of the example corpus, and the same with other lead-ins."""
    asked = [row["question"] for row in _lines("questions.jsonl")]
    leads = ("", "Tell me: ", "I should like to know the following. ")
    return [lead + question for lead in leads for question in asked][:50]


@pytest.fixture(scope="session")
def lm(command):
    return CausalLM.from_pretrained("embedded", device="cpu", dtype="bfloat16")


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("vllm")


@pytest.fixture(scope="session")
def store(lm, folder, passages):
    with LMDBStore(folder / "store", model=lm.fingerprint) as opened:
        local = ParametricModel.of(lm, opened, recipe=RECIPE, max_adapters=3)
        rows = _lines("questions.jsonl")
        asked = {t: [r for r in rows if r["documents"][0] == t] or rows[:1] for t in passages}
        qas = {t: tuple(QA(r["question"], r["answers"][0]) for r in found) for t, found in asked.items()}
        given = {text_hash(text): Augmentation(None, qas[title]) for title, text in passages.items()}
        Parametrizer(local, augmentations=given).parametrize(
            [Passage(text, title, title) for title, text in passages.items()], progress=False
        )
        yield opened


@pytest.fixture(scope="session")
def local(lm, store):
    return ParametricModel.of(lm, store, recipe=RECIPE, max_adapters=3)


@pytest.fixture(scope="session")
def plugin(command, tmp_path_factory):
    """Return the environment in which the server finds the plugin; empty if its Python is not named."""
    python = os.environ.get("DYNPRAG_VLLM_PYTHON")
    if not python:
        return {}
    target = tmp_path_factory.mktemp("plugin")
    pinned = [
        line for line in (ROOT / "constraints.txt").read_text().splitlines() if line[:4] in ("lmdb", "xxha", "lazy")
    ]
    install = [python, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(target), *pinned, str(ROOT)]
    subprocess.run(install, check=True)
    return {"PYTHONPATH": str(target)}


@pytest.fixture(scope="session")
def server(command, store, plugin, folder):
    environment = {**plugin}
    if plugin:
        environment |= {
            "DYNPRAG_STORE": str(folder / "store"),
            "DYNPRAG_SECRET": SECRET,
            "DYNPRAG_EXPORTS": str(folder / "made"),
        }
    running = VLLMServer(command, embedded_model_folder(), folder / "server.log", environment)
    try:
        running.start()
        yield running
    finally:
        running.kill()


@pytest.fixture
def served(server, lm, store, folder):
    return ServedModel(server.url, store, lm=lm, recipe=RECIPE, max_adapters=3, folder=folder / "exports")


@pytest.fixture(scope="session")
def results():
    """Yield a dictionary of figures by name, which is written to a file at the end."""
    found: dict[str, object] = {}
    yield found
    target = os.environ.get("DYNPRAG_VLLM_RESULTS")
    if target and found:
        path = Path(target)
        path.parent.mkdir(parents=True, exist_ok=True)
        known = json.loads(path.read_text()) if path.exists() else {}
        path.write_text(json.dumps({**known, **found}, indent=2) + "\n")
    print("\nvllm:", json.dumps(found))
