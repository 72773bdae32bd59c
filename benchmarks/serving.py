"""What dynamic retrieval costs a vLLM server in throughput, and how much of it the server's prefix cache gives back.

The same questions are asked of graphs that share one server, `--sessions` at a time:

- `single`: one search, the passages in the prompt.
- `flare`: dynamic retrieval, with the preset's published threshold.
- `injected`: as `single`, with the best passage's adapter instead of the passages in the prompt.
- `injected, short`: as `injected`, with the prompt that adapters are trained with. It has no worked examples, and asks
  for the answer alone.

Every cell of the table starts with the unchanging part of its prompt in the prefix cache and with nothing else: its
requests carry a `cache_salt` of its own, under which one more question is asked first. The adapters are loaded into the
server before the first cell. Before that, `single` and `flare` are measured with a server without a prefix cache.

The server, started by the command in DYNPRAG_VLLM_COMMAND, shares the machine with the sessions.
"""

from __future__ import annotations

import os
import random
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.contract import Deadline, finish, machine, note, parser, table
from benchmarks.parametric_runs import open_store, parametrize
from benchmarks.serving_cells import COLUMNS, METHODS, Served
from benchmarks.vllm_server import COMMAND, VLLMServer
from llamaindex_prag.parametric_model import ParametricModel
from llamaindex_prag.parametrize import Parametrizer
from llamaindex_prag.passages import Passage
from llamaindex_prag.serving.served_model import ServedModel
from rag_backbone.documents import read_json_lines
from rag_backbone.loading.causal_lm import CausalLM
from rag_backbone.loading.embedded import NAME, embedded_model_folder

_COMPARED = ("single", "flare")
_CACHES = {"off": "--no-enable-prefix-caching", "on": "--enable-prefix-caching"}
_EXAMPLES = Path(__file__).parents[1] / "examples" / "data"


def main(arguments: Sequence[str] | None = None) -> None:
    """Run and report."""
    options = parser("Throughput of single, dynamic and parametric RAG in a vLLM server.", dtype="bfloat16")
    options.add_argument("--questions", type=int, default=32)
    options.add_argument("--alone", type=int, default=8, help="how many of them a single session is asked")
    options.add_argument("--sessions", type=int, nargs="+", default=[1, 8, 32])
    options.add_argument("--methods", nargs="+", choices=METHODS, default=METHODS)
    options.add_argument("--tokens", type=int, default=48, help="maximum tokens of an answer")
    options.add_argument("--recipe", default="prag", help="of the adapters; those that are missing are trained first")
    args = options.parse_args(arguments)
    passages, questions = (
        [row for _, row in read_json_lines(_EXAMPLES / f"{n}.jsonl")] for n in ("corpus", "questions")
    )
    command = os.environ.get(COMMAND)
    if not command:
        options.error(f"{COMMAND} is not set: the command that starts a vLLM server (docs/vllm.md)")
    if not max(args.sessions) <= args.questions < len(questions):
        options.error(
            f"--questions is {args.questions}; it must be at least the number of sessions, {max(args.sessions)}, and "
            f"less than {len(questions)}, the questions that there are"
        )
    if not 1 <= args.alone <= args.questions:
        options.error(f"--alone is {args.alone}; it must be between 1 and --questions, {args.questions}")
    random.Random(args.seed).shuffle(questions)
    deadline = Deadline(args.max_minutes)
    rows: list[dict[str, Any]] = []
    figures: dict[str, Any] = {}
    lm = CausalLM.from_pretrained(args.model, device="cpu", dtype=args.dtype)
    with open_store(lm) as store, tempfile.TemporaryDirectory(prefix="dynprag-serving-") as folder:
        trained = ParametricModel(lm, store, recipe=args.recipe)
        texts = [Passage(p["text"], p["title"], p["title"]) for p in passages]
        complete = parametrize(trained, Parametrizer, texts, deadline)
        for cache, flag in _CACHES.items():
            if deadline.over:
                complete = False
                break
            model = embedded_model_folder() if args.model == NAME else args.model
            methods = [m for m in args.methods if cache == "on" or m in _COMPARED]
            log = Path(folder) / f"{cache}.log"
            with VLLMServer(command, model, log, options=[flag]) as server:
                made = ServedModel(server.url, store, lm=lm, recipe=args.recipe, folder=Path(folder) / cache)
                served = Served(made, texts, args.tokens)
                figures["vllm"] = served.version()
                if cache == "on":
                    figures["loading_ms"] = served.load_adapters()
                for method, sessions in _cells(methods, args.sessions):
                    asked = questions[: 1 + (args.alone if sessions == 1 else args.questions)]
                    row = served.measured(method, sessions, asked, deadline)
                    complete &= row is not None
                    if row is not None:
                        rows.append({"cache": cache, **row})
                        note(rows[-1])
    rows.sort(key=lambda r: (r["cache"] == "off", r["sessions"], METHODS.index(r["method"])))
    figures |= {
        "compared": comparisons(rows),
        "rows": rows,
        "questions": args.questions,
        "questions_alone": args.alone,
        "tokens": args.tokens,
        "recipe": args.recipe,
        "model": lm.name,
        "dtype": args.dtype,
        "seed": args.seed,
        "complete": complete,
        "machine": machine(),
    }
    report = _report(figures)
    note(report)
    finish("serving_speed", figures, args.out, report)


def _cells(methods: Sequence[str], sessions: Sequence[int]) -> list[tuple[str, int]]:
    """Return the cells in the order in which they are measured: what is compared, close together, and the rest."""
    groups = ([m for m in methods if m in _COMPARED], [m for m in methods if m not in _COMPARED])
    return [(method, n) for group in groups for n in sessions for method in group]


def comparisons(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Compare `flare` with `single` for each number of sessions.

    Returns:
        Rows with `on` and `off`, the seconds of `flare` over those of `single` with and without a prefix cache, and
        `given_back`, the share of the additional seconds without a cache that the cache saves: 1 - (flare on - single
        on) / (flare off - single off). None where a cell is missing.
    """
    seconds = {(r["cache"], r["method"], r["sessions"]): 1 / r["questions/s"] for r in rows}
    found = []
    for sessions in sorted({r["sessions"] for r in rows}):
        pairs = {c: [seconds.get((c, m, sessions)) for m in _COMPARED] for c in _CACHES}
        ratio = {c: flare / single if single and flare else None for c, (single, flare) in pairs.items()}
        extra = {c: flare - single if single and flare else None for c, (single, flare) in pairs.items()}
        back = 1 - extra["on"] / extra["off"] if extra["on"] is not None and extra["off"] else None
        found.append({"sessions": sessions, **ratio, "given_back": back})
    return found


def _report(figures: Mapping[str, Any]) -> str:
    return (
        f"# Dynamic retrieval in a vLLM server: {figures['model']}, {figures['dtype']}, vLLM {figures.get('vllm')}\n\n"
        f"{table(figures['rows'], ['cache', *COLUMNS])}\n\n"
        f"{figures['questions']} questions in each row, with one session the first {figures['questions_alone']} of "
        f"them; answers of at most {figures['tokens']} tokens. Per question: "
        "seconds from its start to its answer, searches, requests to the server, and tokens: of the prompts, those of "
        "them taken from the prefix cache and those computed, generated ones, and those kept in the answer. `ttft`: "
        "seconds to a request's first token, in the server. `in_weights`: questions answered with an adapter. "
        "`failed`: questions that ended with an error. `retried`: requests sent again.\n\n"
        "Seconds of `flare` over those of `single`, with the prefix cache on and off, and the share of the additional "
        "seconds that the cache gives back:\n\n"
        f"{table(figures['compared'], ['sessions', 'on', 'off', 'given_back'])}\n\n"
        f"Loading an adapter into the server: {figures.get('loading_ms') or float('nan'):.0f} ms (median)."
    )


if __name__ == "__main__":
    main()
