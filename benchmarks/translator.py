"""Cost of translating documents into adapters, compared with reading them in the prompt.

- `ms_over_prefill`: the time from stored representations of three documents to active merged adapters (translation,
  merge and activation), over the time to first token that the same documents add in the prompt. `ms_over_prefill_now`
  includes computing the representations.
- `resume_ratio`: a complete resume in mid-answer by injection (translation, activation, and prefill of prompt and
  accepted text, none of which can be reused), over the same resume in context after one more document was retrieved,
  where the engine reuses the shared prefix. `resume_ratio_new`: all documents of the prompt are new.
- `bytes_per_document`, `parameters`: size of the representations and of the translator.

Neither time nor memory depends on the translator's weights, so an untrained translator of the same form can be measured
as well. Both sides alternate; the documents are different real texts, truncated to the same length.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.contract import finish, machine, note, parser, table
from llamaindex_prag.adapters.active_adapters import ActiveAdapters
from llamaindex_prag.adapters.adapter import text_hash
from llamaindex_prag.parametric_model import ParametricModel
from llamaindex_prag.passages import Passage
from llamaindex_prag.prompts import answer_ids, prompt_ids
from llamaindex_prag.store.lmdb_store import LMDBStore
from llamaindex_prag.translator.config import TranslatorConfig
from llamaindex_prag.translator.translator import Translator
from rag_backbone.documents import read_json_lines
from rag_backbone.engine.requests import Request
from rag_backbone.loading.causal_lm import CausalLM

CORPUS = Path("examples/data/ombrel/corpus.jsonl")
QUESTION = "Who built the harbour that the oldest of these towns is known for, and in which year?"
ACCEPTED = "The oldest of these towns is on the northern coast. Its harbour was begun after the great flood, and"


def main(arguments: Sequence[str] | None = None) -> None:
    """Run and report."""
    options = parser("Translating documents into adapters, compared with reading them.")
    options.add_argument("--translator", help="a checkpoint; default: an untrained translator")
    options.add_argument("--kind", default="shared", choices=["shared", "dyprag"], help="kind of untrained translator")
    options.add_argument("--k", type=int, nargs="+", default=[1, 3, 10], help="numbers of documents per question")
    options.add_argument("--tokens", type=int, default=200, help="tokens of a document")
    options.add_argument("--repetitions", type=int, default=15)
    args = options.parse_args(arguments)
    lm = CausalLM.from_pretrained(args.model, dtype=args.dtype)
    if args.translator:
        translator = Translator.load(args.translator, lm)
    else:
        translator = Translator(lm, TranslatorConfig.of(lm, args.kind))
    with tempfile.TemporaryDirectory(prefix="dynprag-translator-") as folder:
        store = LMDBStore(Path(folder) / "store", model=lm.fingerprint)
        costs = _Costs(lm, store, translator, _texts(lm, args.tokens), max(args.k))
        rows = [costs.of(k, args.repetitions) for k in args.k]
        store.close()
    told = next((row for row in rows if row["k"] == 3), rows[0])
    names = ("ms_over_prefill", "ms_over_prefill_now", "resume_ratio", "resume_ratio_new")
    figures: dict[str, Any] = {name: told[name] for name in names}
    figures |= {
        "k": told["k"],
        "bytes_per_document": translator.config.representation_bytes,
        "parameters": translator.parameters,
        "rows": rows,
        "kind": translator.config.kind,
        "tokens": args.tokens,
        "repetitions": args.repetitions,
        "model": lm.name,
        "dtype": args.dtype,
        "machine": machine(),
    }
    report = f"# Translating documents of {args.tokens} tokens: {lm.name}, {args.dtype}, {translator.config.kind}\n\n"
    report += f"{translator.parameters:,} parameters, {translator.config.representation_bytes} bytes per document. "
    report += "Milliseconds, medians.\n\n"
    report += table(rows, list(rows[0])) + "\n"
    note(report)
    finish("translator", figures, args.out, report)


class _Costs:
    """Measures costs on one model; the documents' representations are stored first."""

    def __init__(
        self, lm: CausalLM, store: LMDBStore, translator: Translator, texts: Sequence[str], max_adapters: int
    ) -> None:
        self._lm = lm
        self._translator = translator
        self._texts = texts
        recipe = translator.config.recipe
        self._model = ParametricModel(
            lm, store, recipe=recipe, max_adapters=max_adapters, slots=2, translator=translator
        ).attach()
        assert self._model.translations is not None
        self._model.translations.keep([Passage(text) for text in texts], progress=True)
        self._calls = 0
        self._accepted = answer_ids(lm.tokenizer, ACCEPTED)

    def of(self, k: int, repetitions: int) -> dict[str, Any]:
        """Return the medians for `k` documents, and the medians of the ratios within each repetition."""
        taken: dict[str, list[float]] = {}
        for turn in range(repetitions + 1):
            found = self._turn(self._drawn(k, turn))
            if turn:  # the first is a warm-up
                for name, value in found.items():
                    taken.setdefault(name, []).append(value)
        ratios = {
            "ms_over_prefill": ("kept", "prefill"),
            "ms_over_prefill_now": ("now", "prefill"),
            "resume_ratio": ("resume injected", "resume in context"),
            "resume_ratio_new": ("resume injected", "resume in context, new"),
        }
        row: dict[str, Any] = {"k": k} | {name: statistics.median(values) for name, values in taken.items()}
        for name, (one, other) in ratios.items():
            row[name] = statistics.median(a / b for a, b in zip(taken[one], taken[other], strict=True))
        return row

    def _drawn(self, k: int, turn: int) -> list[str]:
        return [self._texts[(turn * k + i) % len(self._texts)] for i in range(k)]

    def _turn(self, texts: Sequence[str]) -> dict[str, float]:
        bare = prompt_ids(self._lm.tokenizer, QUESTION)
        full = prompt_ids(self._lm.tokenizer, QUESTION, texts)
        fewer = prompt_ids(self._lm.tokenizer, QUESTION, texts[:-1])
        found = {"prefill": self._first_token(full) - self._first_token(bare)}
        found["kept"] = _ms(lambda: self._activate(self._selection(texts)))
        found["now"] = _ms(lambda: self._translated_now(texts))
        accepted = self._accepted
        found["resume in context, new"] = self._first_token(full + accepted)
        self._first_token(fewer + accepted)  # fills the cache as it was before the last document was retrieved
        found["resume in context"] = self._first_token(full + accepted, cleared=False)
        found["resume injected"] = self._first_token(bare + accepted, self._selection(texts))
        return found

    def _selection(self, texts: Sequence[str]) -> ActiveAdapters:
        """Return active adapters with a strength that differs in each call, so that no slot holds them."""
        self._calls += 1
        keys = [key for text in texts if (key := self._model.find_hash(text_hash(text))) is not None]
        selection = self._model.select(keys, strength=1 + 1e-6 * self._calls)
        assert selection is not None
        return selection

    def _activate(self, selection: ActiveAdapters) -> None:
        def activate() -> None:
            with self._model.bank.activate([selection]):
                pass

        self._lm.engine.run(activate)

    def _translated_now(self, texts: Sequence[str]) -> None:
        self._translator.represent(texts)
        self._activate(self._selection(texts))

    def _first_token(self, ids: Sequence[int], adapters: Any = None, *, cleared: bool = True) -> float:
        engine = self._lm.engine
        if cleared:
            engine.prefixes.clear()
        return _ms(lambda: engine.generate(Request(list(ids), 1, adapters=adapters)))


def _texts(lm: CausalLM, tokens: int) -> list[str]:
    """Join the texts of the corpus and split them into documents of `tokens` tokens."""
    whole = " ".join(line["text"] for _, line in read_json_lines(CORPUS))
    ids = lm.tokenizer(whole, add_special_tokens=False).input_ids
    parts = [ids[i : i + tokens] for i in range(0, len(ids) - tokens + 1, tokens)]
    return [str(lm.tokenizer.decode(part)).strip() for part in parts]


def _ms(function: Callable[[], Any]) -> float:
    started = time.perf_counter()
    function()
    return 1000 * (time.perf_counter() - started)


if __name__ == "__main__":
    main()
