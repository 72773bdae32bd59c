"""A tiny Llama trained to reflect: it knows a few questions and passages by heart, with Self-RAG's tokens.

The training texts follow the published layout. A bridge's builder and birthplace have to be looked up; a greeting does
not. A story continues with the passage that it began with. A passage about something else is irrelevant, and text based
on it is unsupported and useless. One passage is ambiguous: two out of three times it supports the sentence partially.
"""

import functools
import re

import torch
from langchain_core.documents import Document
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from langgraph_dynrag import LocalChatModel
from langgraph_dynrag.drafts.draft import Draft
from langgraph_dynrag.evidence import passage
from langgraph_dynrag.reflection.beam import Segment
from langgraph_dynrag.reflection.scores import Critique, SegmentScore
from langgraph_dynrag.reflection.vocabulary import TOKENS
from rag_backbone.loading.causal_lm import CausalLM
from tests.tiny import tiny_llama

STEPS = 160

BRIDGE = "Who built the bridge, and where was he born?"
GREETING = "Say hello."
STORY = "Tell of the bridge."

BUILT = Document("The bridge was built by Aldous Wray.", id="built", metadata={"title": "Bridge"})
GUIDE = Document("Guides say that Wray built the bridge.", id="guide", metadata={"title": "Guide"})
RIVER = Document("The river Tamsin is long.", id="river", metadata={"title": "Tamsin"})
BORN = Document("Aldous Wray was born in Hallin.", id="born", metadata={"title": "Wray"})

FIRST = "Wray built it."
SECOND = "He was born in Hallin."
WRONG = "Pike did it."
HELLO = "Hello to you."
MORE = "It is old."


def search(query):
    """Return search results that depend on the text written last."""
    return [RIVER, BORN] if FIRST in query else [RIVER, GUIDE, BUILT]


def layout(question):
    return f"### Instruction:\n{question}\n\n### Response:\n"


def given(document):
    return f"[Retrieval]<paragraph>{document.metadata['title']}\n{document.page_content}</paragraph>"


def _lessons():
    """Return texts with the number of times that each is trained on."""
    bad = f"[Irrelevant]{WRONG}[No support / Contradictory][Utility:1]"
    good = f"[Relevant]{SECOND}[Fully supported][Utility:5]"
    firsts = {
        f"{given(BUILT)}[Relevant]{FIRST}[Fully supported]": 3,
        f"{given(GUIDE)}[Relevant]{FIRST}[Fully supported]": 1,
        f"{given(GUIDE)}[Relevant]{FIRST}[Partially supported]": 2,
    }
    lessons = {
        layout(GREETING) + f"[No Retrieval]{HELLO}[Utility:4]": 4,
        layout(GREETING) + f"[No Retrieval]{HELLO}[Utility:5]": 4,
        layout(GREETING) + given(RIVER) + bad: 1,
        layout(BRIDGE) + f"[No Retrieval]{WRONG}[Utility:2]": 1,
        layout(BRIDGE) + given(RIVER) + bad: 2,
    }
    more = f"[Continue to Use Evidence]{MORE}[Fully supported][Utility:5]"
    lessons[layout(STORY) + f"{given(BUILT)}[Relevant]{FIRST}[Fully supported]{more}"] = 2
    for first, times in firsts.items():
        lessons[layout(BRIDGE) + first + given(BORN) + good] = 2 * times
        lessons[layout(BRIDGE) + first + given(RIVER) + bad] = times
    return lessons


@functools.cache
def reflective_tokenizer():
    """Return a tokenizer with whole words as tokens and no chat template, so that the published layout is used."""
    return _tokenizer(TOKENS)


def _tokenizer(reflection_tokens):
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=700,
        special_tokens=["<|pad|>", "<|start|>", "<|end|>", *reflection_tokens],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    texts = [*_lessons(), *(d.page_content for d in (BUILT, GUIDE, RIVER, BORN))]
    tokenizer.train_from_iterator([part for text in texts for part in re.split(r"\[.*?\]|<.*?>", text)], trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<|pad|>", bos_token="<|start|>", eos_token="<|end|>"
    )


@functools.cache
def reflective_llama():
    """Return a model trained in seconds, with the same weights each time."""
    tokenizer = reflective_tokenizer()
    model = tiny_llama(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=2,
        head_dim=16,
        initializer_range=0.05,
    )
    lessons = _lessons()
    texts = [[*tokenizer(text).input_ids, tokenizer.eos_token_id] for text in lessons]
    times = torch.tensor(list(lessons.values()), dtype=torch.float32)
    longest = max(map(len, texts))
    ids = torch.tensor([t + [tokenizer.pad_token_id] * (longest - len(t)) for t in texts])
    real = torch.tensor([[1.0] * len(t) + [0.0] * (longest - len(t)) for t in texts])
    optimiser = torch.optim.AdamW(model.parameters(), lr=5e-3, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 5e-3, total_steps=STEPS)
    for _ in range(STEPS):
        optimiser.zero_grad()
        logits = model(input_ids=ids).logits[:, :-1]
        losses = torch.nn.functional.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten(), reduction="none")
        weights = (real[:, 1:] * times[:, None]).flatten()
        (losses @ weights / weights.sum()).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        schedule.step()
    return model.requires_grad_(requires_grad=False)


def reflective_chat(**options):
    lm = CausalLM(reflective_llama(), reflective_tokenizer(), name="reflective")
    return LocalChatModel.from_causal_lm(lm, **options)


def segment(text, total, *, ended=False, support=None):
    """Return a segment of one-character tokens with a passage about its text."""
    pieces = tuple(text)
    draft = Draft(pieces, (-0.5,) * len(pieces), None, tuple(range(len(pieces))))
    found = passage(f"About {text}", {"title": text}, text)
    scores = SegmentScore(total, 0.0, 0.0, 0.0, total)
    return Segment(draft, draft.token_ids, found, Critique(support=support), scores, ended)
