"""Answers from adapters in a llama.cpp server: a graph, and LlamaIndex."""

import json

import pytest
from llama_index.core.schema import NodeWithScore, TextNode

from langgraph_dynrag import AnswerPrompt, create_dynamic_rag
from langgraph_dynrag.injection.parametric import ParametricInjector
from langgraph_dynrag.triggers import EverySentence
from llamaindex_prag.llama_index import ParametricLLM, ParametricNodePostprocessor
from llamaindex_prag.serving.llamacpp_files import export_adapters
from llamaindex_prag.serving.served_model import ServedModel
from rag_backbone.errors import AdapterError, ConfigurationError
from tests.langgraph_dynrag.commands.command import run
from tests.langgraph_dynrag.injection.weights import Fixed
from tests.llamacpp.conftest import TEXTS, chat
from tests.tiny import tiny_llama

pytestmark = [pytest.mark.llamacpp, pytest.mark.parametrize("lm", [tiny_llama], indirect=True)]
QUESTION = {"question": "Who built the bridge?"}


def graph(model, served):
    from langchain_core.documents import Document

    found = [Document(text, metadata={"title": f"doc {n}", "source": f"doc-{n}"}) for n, text in enumerate(TEXTS[:2])]
    return create_dynamic_rag(
        model,
        Fixed(documents=found),
        preset="fixed_sentence",
        trigger=EverySentence(),
        prompt=AnswerPrompt(),
        initial_retrieval=True,
        injection=ParametricInjector(served, missing="context", route="retrieval"),
    )


@pytest.mark.parametrize("asynchronous", [False, True])
async def test_a_graph_answers_from_adapters_of_its_own_documents(server, served, asynchronous):
    built = graph(chat(server, extra_body=served.no_adapters), served)
    result = await built.ainvoke(QUESTION) if asynchronous else built.invoke(QUESTION)
    events = [e for e in result["trace"] if e["type"] == "injection"]
    assert events[0]["in_weights"]
    assert len(server.adapters) == len(events[0]["in_weights"])


def test_a_chat_model_whose_requests_do_not_say_which_adapters_act_is_refused(server, served):
    with pytest.raises(ConfigurationError, match=r"sends lora=None.*extra_body=\{'lora': \[\{'id': 0, 'scale': 0.0"):
        graph(chat(server), served)


def test_llama_index_answers_from_adapters(server, lm, store, local, tmp_path):
    options = {"store": store, "recipe": "prag", "max_adapters": 3, "max_new_tokens": 8}
    there = ParametricLLM(base_url=server, lm=lm, server={"folder": str(tmp_path / "files")}, **options)
    here = ParametricLLM(lm=lm, **options)
    nodes = [NodeWithScore(node=TextNode(text=text), score=1.0) for text in TEXTS[:2]]

    def answer(llm):
        post = ParametricNodePostprocessor(llm=llm, missing="error")
        marked = [n.node.get_content("llm") for n in post.postprocess_nodes(nodes, query_str="Who?")]
        return llm.complete("\n".join([*marked, "Who built the bridge?"])).text

    assert answer(there) == answer(here)
    assert there.to_dict()["server"]["backend"] == "llama.cpp"


def test_the_client_of_a_vllm_server_names_the_other_one(server, store):
    with pytest.raises(ConfigurationError, match="is llama.cpp's.*use LlamaCppModel"):
        ServedModel(server.base_url, store, recipe="prag")


@pytest.fixture
def asked(server, store, tmp_path):
    """Arguments of `dynprag ask` with the adapters of the store in the server, and an index of two of its texts."""
    notes = tmp_path / "notes"
    notes.mkdir()
    for number, text in enumerate(TEXTS[:2]):
        (notes / f"{number}.txt").write_text(text)
    run("index", str(notes), "--index", str(tmp_path / "index"))
    options = {"--base-url": server.base_url, "--model": server.name, "--index": str(tmp_path / "index")}
    options |= {"--injection": "parametric", "--recipe": "prag", "--store": str(store.path), "--route": "retrieval"}
    return {**options, "--max-tokens": "8"}


def ask(options):
    return run("ask", "Who built the bridge?", *(word for option in options.items() for word in option), "--json")


def test_the_command_answers_from_adapters_that_the_server_was_started_with(server, store, gguf_file, asked, tmp_path):
    with pytest.raises(AdapterError, match=r"not loaded in the server at .*; loaded: none\. Write the files"):
        ask(asked)
    server.load(export_adapters(store, tmp_path / "files", base=gguf_file, recipe="prag"))
    told = json.loads(ask(asked).stdout)
    (event,) = [e for e in told["trace"] if e["type"] == "injection"]
    assert len(event["in_weights"]) == 1
    (draft, *_) = [e for e in told["trace"] if e["type"] == "draft"]
    assert draft["pieces"]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"--model": "other"}, "has no model 'other'; it has tiny"),
        ({"--merge": "orthogonal", "--max-active": "2"}, "a request to llama.cpp can only scale them"),
    ],
)
def test_the_command_names_what_the_server_cannot_do(asked, given, message):
    with pytest.raises(ConfigurationError, match=message):
        ask({**asked, **given})


@pytest.mark.parametrize("store", ["alora"], indirect=True)
def test_adapters_that_act_from_the_answer_on_are_refused_when_a_graph_is_built(asked):
    with pytest.raises(ConfigurationError, match=r"a graph that uses a llama\.cpp server.*'alora'"):
        ask({**asked, "--recipe": "alora"})


def test_an_unknown_backend_is_refused(store):
    with pytest.raises(ConfigurationError, match=r"server=\{'backend': 'tgi'\}; known: vllm, llama.cpp"):
        ParametricLLM(base_url="http://127.0.0.1:9/v1", store=store, server={"backend": "tgi"})
