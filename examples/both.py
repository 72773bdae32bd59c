"""Both paradigms on one model: what it retrieves while it writes goes into its weights.

    question -> write and watch -> search -> adapters of the passages found -> the same model, adapted -> resume

Each passage's adapter is trained when it is first needed (about a minute with the embedded model) and stored. With
`--translator`, a hypernetwork trained by `dynprag train-translator` produces it in milliseconds.

Run it with `python -m examples.both`, or `--help`.
"""

import argparse
from pathlib import Path

from langgraph_dynrag import (
    AnswerPrompt,
    LocalChatModel,
    LocalIndex,
    ParametricInjector,
    Trace,
    WeightsPrompt,
    create_dynamic_rag,
)
from llamaindex_prag import LMDBStore, ParametricModel, Translator
from rag_backbone import CausalLM

DATA = Path(__file__).parent / "data" / "corpus.jsonl"
WORK = Path(".dynprag/demo")
QUESTION = "At which yard was the Patient Anna built?"


def main() -> None:
    """Ask one question, and print what happened."""
    options = argparse.ArgumentParser(
        description="Retrieve while writing, and put what is found into the model's weights."
    )
    options.add_argument("question", nargs="?", default=QUESTION)
    options.add_argument("--model", default="embedded", help="'embedded', a folder or a Hub id")
    options.add_argument("--preset", default="flare", help="when and what to retrieve: flare, dragin, etc, ...")
    options.add_argument("--injection", default="parametric", choices=["parametric", "combined"])
    options.add_argument(
        "--reasoned", action="store_true", help="use the preset's prompt with worked examples, for multi-step questions"
    )
    options.add_argument("--translator", type=Path, help="checkpoint of a translator; replaces training")
    options.add_argument("--k", type=int, default=1, help="passages per search")
    args = options.parse_args()
    lm = CausalLM.from_pretrained(args.model)
    index = LocalIndex(WORK / "index")
    index.ingest(DATA)
    with LMDBStore(WORK / "adapters", model=lm.fingerprint) as store:
        translator = Translator.load(args.translator, lm) if args.translator else None
        recipe = translator.config.recipe if translator else "distill"
        adapters = ParametricModel.of(lm, store, recipe=recipe, translator=translator)
        injector = ParametricInjector(
            adapters, injection=args.injection, missing="translate" if translator else "train", progress=True
        )
        prompt = None if args.reasoned else WeightsPrompt()
        answer_with_both(index, injector, args.question, args.preset, args.k, prompt)


def answer_with_both(
    index: LocalIndex,
    injector: ParametricInjector,
    question: str,
    preset: str,
    k: int,
    prompt: AnswerPrompt | None,
) -> None:
    """Ask one question; print the trace and the number of prompt tokens of each draft."""
    graph = create_dynamic_rag(
        LocalChatModel.from_causal_lm(injector.adapters.local.lm),
        index.as_retriever("hybrid"),
        preset=preset,
        k=k,
        injection=injector,
        prompt=prompt,
    )
    trace = Trace.from_state(graph.invoke({"question": question}))
    print(trace)
    drafts = [event["prompt_tokens"] for event in trace.events if event["type"] == "draft"]
    print(f"Prompt tokens of each draft: {', '.join(map(str, drafts))}")


if __name__ == "__main__":
    main()
