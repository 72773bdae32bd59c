"""Which prompt retrieves facts from the weights best: the one used in training, or one with worked examples.

Each question is answered by a graph with `injection="parametric"` whose retriever returns the right passage, so that
only the prompt differs: `WeightsPrompt`, or `reasoned_prompt` with 0 or 8 exemplars. Passages without a trained adapter
are left out; nothing is trained.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from langchain_core.callbacks import CallbackManagerForRetrieverRun
from langchain_core.documents import Document
from langchain_core.retrievers import BaseRetriever

from benchmarks.contract import Deadline, finish, machine, note, parser, table
from benchmarks.parametric_runs import open_store
from benchmarks.runs import Records, key_of
from benchmarks.scoring import interval, mean
from benchmarks.single_hop import Fact, draw, load_facts
from langgraph_dynrag.budgets import Budgets
from langgraph_dynrag.chat_model.local_chat_model import LocalChatModel
from langgraph_dynrag.graph import create_dynamic_rag
from langgraph_dynrag.injection.parametric import ParametricInjector, WeightsPrompt
from langgraph_dynrag.prompts import AnswerPrompt, reasoned_prompt
from llamaindex_prag.parametric_model import ParametricModel
from llamaindex_prag.prompts import clean_answer
from rag_backbone.loading.causal_lm import CausalLM
from rag_backbone.metrics import f1

PROMPTS: dict[str, AnswerPrompt] = {
    "as trained": WeightsPrompt(),
    "reasoning, no exemplars": reasoned_prompt(0),
    "reasoning, 8 exemplars": reasoned_prompt(8),
}


class Right(BaseRetriever):
    """A retriever that returns the passage that contains the answer."""

    passages: dict[str, Document]
    """Passage for each question."""

    def _get_relevant_documents(self, query: str, *, run_manager: CallbackManagerForRetrieverRun) -> list[Document]:  # noqa: ARG002
        return [self.passages[query]]


def main(arguments: Sequence[str] | None = None) -> None:
    """Ask and report."""
    options = parser("Prompts for facts in the weights.", dtype="bfloat16")
    options.add_argument("--data", type=Path, required=True, help="a SQuAD 1.1 or MuSiQue-Ans file, or a folder")
    options.add_argument("--passages", type=int, default=100, help="passages drawn by the seed, with one question each")
    options.add_argument("--questions", type=int, default=40)
    args = options.parse_args(arguments)
    deadline = Deadline(args.max_minutes)
    facts = draw(load_facts(args.data), passages=args.passages, per_passage=1, seed=args.seed)
    lm = CausalLM.from_pretrained(args.model, dtype=args.dtype)
    with open_store(lm) as store:
        model = ParametricModel.of(lm, store)
        asked = [fact for fact in facts if model.knows(fact.passage)][: args.questions]
        found = {name: _asked(prompt, asked, model, args.dtype, deadline) for name, prompt in PROMPTS.items()}
    known = [i for i in range(len(asked)) if all(values[i] is not None for values in found.values())]
    rows = []
    for name, values in found.items():
        scores = [100 * float(values[i] or 0.0) for i in known]
        over = [100 * float(found["as trained"][i] or 0.0) - score for i, score in zip(known, scores, strict=True)]
        (low, high), (least, most) = interval(scores), interval(over)
        rows.append(
            {
                "prompt": name,
                "n": len(known),
                "f1": mean(scores),
                "interval": f"{low:.1f} to {high:.1f}",
                "as trained, minus this": f"{mean(over):.1f} [{least:.1f}, {most:.1f}]",
            }
        )
    report = f"# Prompts for facts in the weights: {lm.name}, {args.dtype}\n\n{table(rows, list(rows[0]))}\n"
    note(report)
    figures = {
        "complete": len(known) == len(asked),
        "rows": rows,
        "model": lm.name,
        "dtype": args.dtype,
        "data": args.data.name,
        "seed": args.seed,
        "machine": machine(),
    }
    finish("weights_prompt", figures, args.out, report)


def _asked(
    prompt: AnswerPrompt, facts: Sequence[Fact], model: ParametricModel, dtype: str, deadline: Deadline
) -> list[float | None]:
    documents = {f.question: Document(f.passage, metadata={"title": f.title}) for f in facts}
    graph = create_dynamic_rag(
        LocalChatModel.from_causal_lm(model.lm),
        Right(passages=documents),
        preset="single",
        prompt=prompt,
        injection=ParametricInjector(model, missing="context", route="retrieval"),
        budgets=Budgets(tokens=80),
    )
    records = Records("weights_prompt")
    scores: list[float | None] = []
    for fact in facts:
        about: dict[str, Any] = {
            "model": model.lm.fingerprint,
            "dtype": dtype,
            "question": fact.question,
            "prompt": repr(prompt),
            "adapter": model.key(fact.passage).digest,
        }
        if (known := records.get(key_of(about))) is None and not deadline.over:
            result = graph.invoke({"question": fact.question})
            answer = clean_answer(result["short_answer"] or result["answer"])
            known = {"answer": answer, "f1": f1(answer, fact.answers)}
            records.put(key_of(about), about, known)
        scores.append(None if known is None else known["f1"])
    return scores


if __name__ == "__main__":
    main()
