"""Speed of llama.cpp's server compared with the engine in this process: tokens per second, and whole `flare` questions.

The backends run the same weights, with the same number of threads:

- `engine`: the engine in this process, in `--dtype`.
- `llama.cpp, F32`: the GGUF file's weights as float32, which the engine also computes with.
- `llama.cpp, Q8_0` and `Q4_0`: these weights again, in 8 and 4 bits, which llama.cpp computes fastest on CPUs.
- `llama.cpp, <type> (the file)`: the GGUF file as it is.

They take turns, repetition by repetition and question by question. `reading` is the rate up to the first token after a
prompt that no cache has; `writing` the rate of the tokens after it, from the median pause between two. A question's
seconds are those of the whole graph. A ratio is the engine's seconds over a backend's, so above 1 llama.cpp is faster.
The server is the one in the package `xllamacpp`, or with `--program` a `llama-server` built for this machine.
"""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from langchain_core.documents import Document
from langchain_openai import ChatOpenAI
from pydantic import SecretStr

from benchmarks.contract import Deadline, finish, machine, note, parser, table
from benchmarks.gguf_precision import Precision, copied
from benchmarks.runs import load_chat
from benchmarks.scoring import mean
from langgraph_dynrag.graph import create_dynamic_rag
from langgraph_dynrag.retrieval.bm25 import BM25Retriever
from langgraph_dynrag.trace.trace import Trace
from llamaindex_prag.serving.llamacpp_client import LlamaCppClient
from llamaindex_prag.store.gguf_file import GGUFModel
from rag_backbone.documents import read_json_lines
from rag_backbone.engine.requests import Request
from rag_backbone.engine.sampling import Sampling
from rag_backbone.loading.cache_folder import cache_root
from rag_backbone.loading.embedded import NAME, embedded_gguf_file
from rag_backbone.loading.llamacpp_server import LlamaCppServer
from rag_backbone.metrics import f1

if TYPE_CHECKING:
    from rag_backbone.loading.causal_lm import CausalLM

_ENGINE = "engine"
_PRECISIONS: tuple[Precision, ...] = ("F32", "Q8_0", "Q4_0")
_EXAMPLES = Path(__file__).parents[1] / "examples" / "data"


def main(arguments: Sequence[str] | None = None) -> None:
    """Run and report."""
    options = parser("llama.cpp's server compared with the engine in this process.")
    options.add_argument("--gguf", type=Path, help="the model's GGUF file; not needed for the embedded model")
    options.add_argument("--program", help="a llama-server, instead of that in xllamacpp")
    options.add_argument("--questions", type=int, default=12)
    options.add_argument("--repetitions", type=int, default=7, help="of reading and writing")
    options.add_argument("--prompt-tokens", type=int, default=512)
    options.add_argument("--tokens", type=int, default=48)
    args = options.parse_args(arguments)
    if args.gguf is None and args.model != NAME:
        options.error(f"--model {args.model} needs its GGUF file: --gguf FILE")
    import torch

    deadline, file = Deadline(args.max_minutes), args.gguf or embedded_gguf_file()
    copy = f"{cache_root() / 'benchmarks' / file.stem}-{file.stat().st_size}"
    files = {f"llama.cpp, {p}": copied(file, Path(f"{copy}-{p}.gguf"), p) for p in _PRECISIONS}
    files[f"llama.cpp, {GGUFModel.read(file).quantisation} (the file)"] = file
    chat = load_chat(args.model, args.dtype)
    threads = torch.get_num_threads()
    with ExitStack() as stack:
        servers = {
            name: stack.enter_context(LlamaCppServer(path, threads=threads, parallel=1, program=args.program))
            for name, path in files.items()
        }
        speeds = _speeds(chat.lm, servers, args, deadline)
        chats: dict[str, Any] = {_ENGINE: chat} | {
            name: ChatOpenAI(
                base_url=server.base_url,
                model=server.name,
                api_key=SecretStr("none"),
                temperature=0,
                timeout=3600,
                max_retries=0,
            )
            for name, server in servers.items()
        }
        rows = _asked(chats, args.questions, args.seed, deadline)
    figures: dict[str, Any] = {
        "backends": {name: _summary(name, speeds, rows) for name in chats},
        "questions": len(rows) // len(chats),
        "repetitions": len(speeds),
        "model": chat.lm.name,
        "server": "xllamacpp" if args.program is None else Path(args.program).name,
        "dtype": args.dtype,
        "prompt_tokens": args.prompt_tokens,
        "tokens": args.tokens,
        "seed": args.seed,
        "complete": len(rows) == args.questions * len(chats) and len(speeds) == args.repetitions,
        "machine": machine(),
    }
    report = _report(figures)
    note(report)
    finish("llamacpp", figures, args.out, report)


def _speeds(
    lm: CausalLM, servers: Mapping[str, LlamaCppServer], args: Any, deadline: Deadline
) -> list[dict[str, tuple[float, float]]]:
    """Measure (reading, writing) tokens per second of each backend, `args.repetitions` times in turn."""
    found: list[dict[str, tuple[float, float]]] = []
    draws = random.Random(args.seed)
    clients = {name: LlamaCppClient(server.base_url, timeout=3600) for name, server in servers.items()}
    for i in range(args.repetitions + 1):
        prompt = [draws.randrange(100, 30_000) for _ in range(args.prompt_tokens)]  # no cache has it
        row = {_ENGINE: _rates(_engine_steps(lm, prompt, args.tokens), len(prompt))}
        for name, client in clients.items():
            row[name] = _rates(_server_steps(client, prompt, args.tokens), len(prompt))
        if i:  # the first is a warm-up
            found.append(row)
            note(f"{i}/{args.repetitions}: " + ", ".join(f"{k} {r:.0f} / {w:.1f}" for k, (r, w) in row.items()))
        if deadline.over and found:
            break
    return found


def _engine_steps(lm: CausalLM, prompt: list[int], tokens: int) -> Iterator[Any]:
    never = Sampling(logit_bias=dict.fromkeys(lm.engine.end_ids, -1e9))
    return iter(lm.engine.stream(Request(prompt, tokens, sampling=never)))


def _server_steps(client: LlamaCppClient, prompt: list[int], tokens: int) -> Iterator[Any]:
    body = {"prompt": prompt, "n_predict": tokens, "temperature": 0, "ignore_eos": True, "cache_prompt": False}
    return (event for event in client.stream({**body, "n_probs": 1, "return_tokens": True}) if event.get("tokens"))


def _rates(steps: Iterator[Any], prompt_tokens: int) -> tuple[float, float]:
    started = time.perf_counter()
    at = [time.perf_counter() for _ in steps]
    return prompt_tokens / (at[0] - started), 1 / statistics.median(b - a for a, b in pairwise(at))


def _asked(chats: Mapping[str, Any], count: int, seed: int, deadline: Deadline) -> list[dict[str, Any]]:
    """Ask each question of each backend; a first one, which fills the prompt caches, is not counted."""
    passages = [passage for _, passage in read_json_lines(_EXAMPLES / "corpus.jsonl")]
    documents = [Document(p["text"], metadata={"title": p["title"], "source": p["title"]}) for p in passages]
    retriever = BM25Retriever.from_documents(documents, k=3)
    graphs = {name: create_dynamic_rag(chat, retriever, preset="flare") for name, chat in chats.items()}
    questions = [question for _, question in read_json_lines(_EXAMPLES / "questions.jsonl")]
    random.Random(seed).shuffle(questions)
    rows: list[dict[str, Any]] = []
    for i, row in enumerate(questions[: count + 1]):
        if deadline.over and i:
            break
        for name, graph in graphs.items():
            started = time.perf_counter()
            result = graph.invoke({"question": row["question"]})
            seconds = time.perf_counter() - started
            note(f"{i}/{count}: {name} {seconds:.1f} s, {result['short_answer']!r}")
            counts = Trace.from_state(result).counts
            written = counts["accepted_tokens"] + counts["discarded_tokens"]
            if i:
                rows.append(
                    {
                        "backend": name,
                        "question": row["question"],
                        "seconds": seconds,
                        "tokens": written,
                        "drafts": counts["drafts"],
                        "answer": result["answer"],
                        "f1": f1(result["short_answer"], row["answers"]),
                    }
                )
    return rows


def _summary(
    name: str, speeds: Sequence[Mapping[str, tuple[float, float]]], rows: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    own = [r for r in rows if r["backend"] == name]
    seconds = mean([r["seconds"] for r in own])
    return {
        "reading": statistics.median(s[name][0] for s in speeds),
        "writing": statistics.median(s[name][1] for s in speeds),
        "flare_seconds": seconds,
        "flare_ratio": mean([r["seconds"] for r in rows if r["backend"] == _ENGINE]) / seconds if own else None,
        "same_answers": _same_answers(name, rows),
        "flare_tokens": mean([r["tokens"] for r in own]),
        "flare_drafts": mean([r["drafts"] for r in own]),
        "f1": mean([r["f1"] for r in own]),
    }


def _same_answers(name: str, rows: Sequence[Mapping[str, Any]]) -> float:
    """Return the fraction of questions to which the engine and another backend give the same answer."""
    answers = {(r["backend"], r["question"]): r["answer"] for r in rows}
    asked = {r["question"] for r in rows}
    return mean([float(answers[_ENGINE, q] == answers[name, q]) for q in asked])


def _report(figures: Mapping[str, Any]) -> str:
    columns = ["backend", "reading", "writing", "flare_seconds", "flare_ratio", "flare_tokens", "flare_drafts", "f1"]
    rows = [{"backend": name, **found} for name, found in figures["backends"].items()]
    return (
        f"# llama.cpp and the engine in this process: {figures['model']}, {figures['dtype']}, {figures['server']}\n\n"
        f"{table(rows, [*columns, 'same_answers'])}\n\n"
        "Tokens per second of reading and writing; means over "
        f"{figures['questions']} questions of seconds, the engine's seconds over these, tokens written, drafts and F1; "
        "the fraction of answers that are the engine's."
    )


if __name__ == "__main__":
    main()
