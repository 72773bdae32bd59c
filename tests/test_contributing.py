"""What CONTRIBUTING shows runs as it stands, each example with those before it, and is short."""

import re
import tomllib
from pathlib import Path

import yaml

from langgraph_dynrag import AnswerPrompt
from rag_backbone import CausalLM
from tests.langgraph_dynrag.scripted import ScriptedChatModel, WatchedRetriever, said
from tests.tiny import tiny_llama, tiny_tokenizer

ROOT = Path(__file__).parents[1]
EXAMPLES = re.findall(r"```python\n(.*?)```", (ROOT / "CONTRIBUTING.md").read_text("utf-8"), re.DOTALL)


def test_every_example_is_under_forty_lines():
    assert len(EXAMPLES) == 4
    assert max(example.count("\n") for example in EXAMPLES) < 40


def test_the_examples_run(tmp_path):
    replies = [said("It was built by Wray in 1871. So the answer is 1871.")] * 4
    retriever = WatchedRetriever()
    given = {
        "model": ScriptedChatModel(replies=replies),
        "retriever": retriever,
        "lm": CausalLM(tiny_llama(), tiny_tokenizer()),
        "folder": tmp_path / "adapters",
    }
    trigger, query, recipe, store = EXAMPLES
    exec(trigger, given)
    prompt = AnswerPrompt(instructions="Answer.")
    create, model = given["create_dynamic_rag"], given["model"]
    graph = create(model, retriever, preset="single", trigger=given["Numbers"](), prompt=prompt)
    events = graph.invoke({"question": "When did Orrow get its bridge?"})["trace"]
    assert any(e["reason"].startswith("the number 1871") for e in events if e["type"] == "verdict")
    exec(query, given)
    again = ScriptedChatModel(replies=replies)
    graph = create(again, retriever, preset="fixed_sentence", query=given["CapitalisedWords"](), prompt=prompt)
    retriever.queries.clear()
    graph.invoke({"question": "When did Orrow get its bridge?"})
    assert any(query.startswith("When Orrow") for query in retriever.queries)
    exec(recipe, given)
    assert given["report"].trained == 1
    exec(store, given)
    assert isinstance(given["answer"], str)


def test_the_version_is_written_in_one_place_and_cited_as_it_is():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text("utf-8"))
    assert citation["version"] == project["version"]
    assert citation["license"] == project["license"]


def test_the_workflow_runs_what_ci_runs():
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text("utf-8"))
    assert {"run": ".ci/run"} in workflow["jobs"]["test"]["steps"]
