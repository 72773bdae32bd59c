"""The options of `create_dynamic_rag`: one definition for all surfaces, checked when the graph is built."""

import ast
import dataclasses
import inspect
import itertools
import json
from pathlib import Path

import pytest

from langgraph_dynrag import Settings, acreate_dynamic_rag, calibrate, create_dynamic_rag, create_nodes, get_preset
from langgraph_dynrag.options import OPTIONS, DynamicRAGOptions, OtherOptions
from rag_backbone.errors import ConfigurationError
from tests.langgraph_dynrag.scripted import ScriptedChatModel

ROOT = Path(__file__).parents[2]
MADE_BY_THE_GRAPH = {"generator", "retriever", "reflector", "injector", "preset"}


def test_the_options_are_the_fields_of_the_settings():
    assert {f.name for f in dataclasses.fields(Settings)} - MADE_BY_THE_GRAPH == OPTIONS


@pytest.mark.parametrize("function", [create_dynamic_rag, create_nodes, calibrate, acreate_dynamic_rag])
def test_all_surfaces_take_the_same_typed_options(function):
    parameters = inspect.signature(function).parameters
    (options,) = [p for p in parameters.values() if p.kind is p.VAR_KEYWORD]
    assert DynamicRAGOptions.__optional_keys__ - OtherOptions.__optional_keys__ == {"trigger"}
    own = "trigger" in parameters  # which `calibrate` also takes by the name "learned"
    assert f"Unpack[{'OtherOptions' if own else 'DynamicRAGOptions'}]" in str(options.annotation)


def test_create_dynamic_rag_has_ten_parameters():
    named = [p for p in inspect.signature(create_dynamic_rag).parameters.values() if p.kind is not p.VAR_KEYWORD]
    assert len(named) == 10


def test_every_option_is_documented():
    tree = ast.parse(Path(inspect.getsourcefile(DynamicRAGOptions)).read_text("utf-8"))
    bodies = [n.body for n in tree.body if isinstance(n, ast.ClassDef) and n.name.endswith("Options")]
    pairs = itertools.chain.from_iterable(map(itertools.pairwise, bodies))
    documented = {a.target.id for a, b in pairs if isinstance(a, ast.AnnAssign) and isinstance(b, ast.Expr)}
    assert documented == OPTIONS


@pytest.mark.parametrize("function", [create_dynamic_rag, create_nodes])
def test_a_misspelt_option_names_the_nearest_one(function):
    with pytest.raises(ConfigurationError, match="'looakhead' .did you mean 'lookahead'"):
        function(ScriptedChatModel(replies=[]), preset="no_retrieval", looakhead=5)


@pytest.mark.parametrize(
    ("option", "line"),
    [
        ("dataset", r"get_preset\(NAME, dataset=...\)"),
        ("conflicts", r"ParametricInjector\(adapters, conflicts=...\)"),
        ("timeout", r"RetrievalPolicy\(timeout=...\)"),
    ],
)
def test_an_option_of_another_part_says_where_it_belongs(option, line):
    with pytest.raises(ConfigurationError, match=line):
        create_dynamic_rag(ScriptedChatModel(replies=[]), preset="no_retrieval", **{option: 1})


def test_a_preset_brings_a_data_sets_settings_and_the_published_form():
    reference = get_preset("dragin", dataset="hotpotqa", bundle="reference")
    assert (reference.dataset, reference.bundle) == ("hotpotqa", "reference")
    assert reference.settings["trigger"].bundle == "reference"
    nodes = create_nodes(ScriptedChatModel(replies=[]), preset=get_preset("no_retrieval", dataset="hotpotqa"))
    assert nodes.generate.settings.budgets.tokens == 100


def imports_of(source):
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and node.module:
            yield node.module


def sources():
    for path in sorted((ROOT / "examples").rglob("*.py")):
        yield path.name, path.read_text("utf-8")
    for path in sorted((ROOT / "examples").rglob("*.ipynb")):
        cells = [c["source"] for c in json.loads(path.read_text("utf-8"))["cells"] if c["cell_type"] == "code"]
        for cell in cells:
            lines = [line for line in "".join(cell).splitlines() if not line.startswith(("%", "!"))]
            yield path.name, "\n".join(lines)
    for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))):
        for block in path.read_text("utf-8").split("```python\n")[1:]:
            yield path.name, block.split("```")[0]


def test_examples_notebooks_and_pages_import_from_the_front_doors():
    """Only triggers and queries, of which there are many, have a module of their own."""
    doors = {"langgraph_dynrag", "llamaindex_prag", "rag_backbone"}
    allowed = {*doors, "langgraph_dynrag.triggers", "langgraph_dynrag.queries", "llamaindex_prag.llama_index"}
    used = {(name, m) for name, source in sources() for m in imports_of(source) if m.split(".")[0] in doors}
    assert {m for _, m in used} >= doors
    assert {(name, m) for name, m in used if m not in allowed} == set()
