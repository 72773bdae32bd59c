"""A plain implementation of DRAGIN's published procedure on top of transformers: the baseline of `dynamic_cost`.

It drafts to the full length, runs a second forward pass with `output_attentions` for the trigger and another one for
the query, and generates from scratch after a retrieval. The signals are defined as in our preset (bounded by the
sentence, in the real context), and formulas, prompt, retriever, evidence and stopping rules are the same code, so that
only the procedure differs. Nothing is cached between model calls; within a call, `generate` uses its KV cache.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from langchain_core.messages import AIMessage
from langchain_core.retrievers import BaseRetriever

from langgraph_dynrag.chat_model.local_chat_model import LocalChatModel
from langgraph_dynrag.drafts.collector import rows_from_scores
from langgraph_dynrag.drafts.draft import AttentionRows, Context, Draft, DraftView, Unit, Verdict
from langgraph_dynrag.evidence import Passage, passage
from langgraph_dynrag.settings import Settings
from langgraph_dynrag.short_answer import is_complete, short_answer
from rag_backbone.engine.signals import distribution
from rag_backbone.engine.stop_strings import Detokenizer


@dataclass
class NaiveAnswer:
    """The answer of the naive procedure, its decisions and its cost."""

    answer: str = ""
    short_answer: str = ""
    trigger_sentences: list[str] = field(default_factory=list)
    queries: list[str] = field(default_factory=list)
    forward_tokens: int = 0


class NaiveDragin:
    """Runs the procedure for one question at a time."""

    def __init__(self, chat: LocalChatModel, retriever: BaseRetriever, settings: Settings) -> None:
        self._chat = chat
        self._model: Any = chat.lm.model
        self._retriever = retriever
        self._settings = settings

    def ask(self, question: str) -> NaiveAnswer:
        """Draft, judge, retrieve and draft again, until a draft needs no retrieval."""
        settings = self._settings
        out = NaiveAnswer()
        accepted: list[int] = []
        text = ""
        evidence: list[Passage] = []
        unchecked = False
        while True:
            room = settings.budgets.tokens - len(accepted)
            if room <= 0:
                break
            prompt = self._prompt(question, evidence, accepted)
            draft = self._draft(prompt, room, out)
            hit = self._first_hit(question, text, accepted, prompt, draft, evidence, unchecked, out)
            if hit is None:
                text += draft.text
                accepted += list(draft.token_ids or ())
                break
            start, verdict, view = hit
            assert verdict.position is not None
            query = settings.query.plan(view, verdict).queries[0]
            out.trigger_sentences.append(view.unit.text)
            out.queries.append(query)
            found = [passage(d.page_content, d.metadata, d.id) for d in self._retriever.invoke(query)[: settings.k]]
            evidence = [p for p in found if p is not None]
            kept = draft[: start + verdict.position]
            text += kept.text
            accepted += list(kept.token_ids or ())
            unchecked = True
        return self._closed(question, evidence, text, accepted, out)

    def _prompt(self, question: str, evidence: list[Passage], accepted: list[int]) -> list[int]:
        messages = self._settings.prompt.messages(question, evidence)
        return self._chat.encode([*messages, AIMessage("", response_metadata={"dynprag": {"token_ids": accepted}})]).ids

    def _draft(self, prompt: list[int], tokens: int, out: NaiveAnswer) -> Draft:
        """Generate from scratch, up to the full length or the end of the sequence."""
        ids = torch.tensor([prompt], device=self._model.device)
        with torch.inference_mode():
            made = self._model.generate(
                ids,
                attention_mask=torch.ones_like(ids),
                max_new_tokens=tokens,
                do_sample=False,
                output_logits=True,
                return_dict_in_generate=True,
                pad_token_id=self._chat.lm.tokenizer.pad_token_id or 0,
            )
        new = made.sequences[0, len(prompt) :].tolist()
        out.forward_tokens += len(prompt) + len(new) - 1
        ends = self._chat.lm.engine.end_ids
        length = next((i for i, t in enumerate(new) if t in ends), len(new))
        logits = torch.cat(made.logits).float()[:length]
        log_z, entropy = distribution(logits, entropy=True)
        assert entropy is not None
        chosen = logits.gather(1, torch.tensor(new[:length], device=logits.device)[:, None])[:, 0] - log_z
        detokenizer = Detokenizer(self._chat.lm.tokenizer, prompt)
        pieces = [detokenizer.push(t) for t in new[:length]]
        draft = Draft(
            tuple(pieces),
            tuple(chosen.tolist()),
            tuple(entropy.tolist()),
            tuple(new[:length]),
            "end" if length < len(new) else "limit",
        )
        return self._stopped(draft)

    def _stopped(self, draft: Draft) -> Draft:
        """Truncate a draft at the first stop string."""
        found = [at for s in self._settings.prompt.stop if (at := draft.text.find(s)) >= 0]
        if not found:
            return draft
        kept = sum(1 for span in draft.spans if span.end <= min(found))
        cut = draft[:kept]
        return Draft(cut.pieces, cut.logprobs, cut.entropies, cut.token_ids, "end")

    def _first_hit(
        self,
        question: str,
        text: str,
        accepted: list[int],
        prompt: list[int],
        draft: Draft,
        evidence: list[Passage],
        unchecked: bool,
        out: NaiveAnswer,
    ) -> tuple[int, Verdict, DraftView] | None:
        """Return start, verdict and view of the first sentence at which the trigger fires; None if there is none."""
        if not len(draft):
            return None
        weights = self._attention(prompt + list(draft.token_ids or ()), out)
        start = 0
        while start < len(draft):
            rest = draft[start:]
            judged = Unit("sentence").length(rest) or len(rest)
            skip = unchecked and start == 0
            phrase = self._settings.prompt.answer_phrase
            before = text + draft[:start].text
            view = self._view(question, before, accepted, prompt, draft, start, judged, weights, evidence)
            if not skip:
                verdict = self._settings.trigger.judge(view)
                if verdict.retrieve and verdict.position is not None:
                    # The published procedure runs another forward pass to form the query.
                    upto = len(prompt) + start + verdict.position + 1
                    again = self._attention((prompt + list(draft.token_ids or ()))[:upto], out)
                    full = torch.zeros_like(weights)
                    full[:, :upto, :upto] = again
                    view = self._view(question, before, accepted, prompt, draft, start, judged, full, evidence)
                    return start, verdict, view
            if phrase is not None and is_complete(before + rest.text, phrase) and phrase in before + view.unit.text:
                return None
            start += judged
        return None

    def _attention(self, ids: list[int], out: NaiveAnswer) -> torch.Tensor:
        """Return the last layer's attention (heads, tokens, tokens) from a forward pass in eager mode."""
        original = self._model.config._attn_implementation  # noqa: SLF001
        self._model.set_attn_implementation("eager")
        try:
            with torch.inference_mode():
                done = self._model(torch.tensor([ids], device=self._model.device), output_attentions=True)
        finally:
            self._model.set_attn_implementation(original)
        out.forward_tokens += len(ids)
        weights: torch.Tensor = done.attentions[-1][0].float()
        return weights

    def _view(
        self,
        question: str,
        before: str,
        accepted: list[int],
        prompt: list[int],
        draft: Draft,
        start: int,
        judged: int,
        weights: torch.Tensor,
        evidence: list[Passage],
    ) -> DraftView:
        begin = len(prompt) + start
        rows: AttentionRows = rows_from_scores(weights[:, begin - 1 :].numpy(force=True), begin)
        encoded = self._chat.encode(self._settings.prompt.messages(question, evidence))
        positions = encoded.tokens_of(question)
        pieces = tuple(encoded.text[encoded.spans[i].start : encoded.spans[i].end] for i in positions)
        detokenizer = Detokenizer(self._chat.lm.tokenizer, [])
        answer = tuple(detokenizer.push(t) for t in [*accepted, *(draft[:start].token_ids or ())])
        return DraftView(
            question=question,
            accepted=before,
            draft=draft[start:],
            judged=judged,
            attention=rows,
            context=Context(pieces, tuple(positions), answer),
            carries_content=self._settings.carries_content,
        )

    def _closed(
        self, question: str, evidence: list[Passage], text: str, accepted: list[int], out: NaiveAnswer
    ) -> NaiveAnswer:
        """Prompt explicitly for the short answer if the text has none."""
        phrase = self._settings.prompt.answer_phrase
        if phrase is not None and phrase.lower() not in text.lower():
            lead = f" {phrase}"
            ids = [*accepted, *self._chat.get_token_ids(lead)]
            closing = self._draft(self._prompt(question, evidence, ids), self._settings.budgets.closing_tokens, out)
            text = text.rstrip() + lead + closing.text
        out.answer = text.strip()
        out.short_answer = short_answer(out.answer, phrase)
        return out
