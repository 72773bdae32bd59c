"""Prompts that tell a model how to search with tags, one for each format of `langgraph_dynrag.search_tags.formats`.

The wording is our own. A model that was trained with a format may perform best with its training prompt; pass that as
`prompt=AnswerPrompt(...)`. The marks in these prompts never trigger a search.
"""

from __future__ import annotations

from langgraph_dynrag.prompts import AnswerPrompt, Exemplar
from langgraph_dynrag.search_tags.formats import R1_SEARCHER, SEARCH, SEARCH_O1, SEARCH_R1, TagFormat

# No blank line as a stop string: reasoning models put one between their paragraphs.
_STOP = ("\nQuestion:",)


def tag_prompt(tag_format: TagFormat) -> AnswerPrompt:
    """Return the prompt for a format: worked examples for instruct models, instructions alone for trained models."""
    return _PROMPTS[tag_format.name] if tag_format.name in _PROMPTS else _with_examples(tag_format)


def _with_examples(tag_format: TagFormat) -> AnswerPrompt:
    opening, closing = tag_format.call
    return AnswerPrompt(
        instructions=(
            "Answer the question. Think step by step in a few short sentences. Whenever you need a fact that you are "
            f"not sure of, write {opening}what to look for{closing} and wait: what was found will be given to you "
            f"between {tag_format.result[0]} and {tag_format.result[1]}. Search for one fact at a time, in your own "
            'words. Finish with a sentence that begins with "So the answer is".'
        ),
        exemplars=tuple(_examples(tag_format)),
        stop=_STOP,
    )


def _examples(tag_format: TagFormat) -> list[Exemplar]:
    def search(query: str, *lines: str) -> str:
        (a, b), (c, d) = tag_format.call, tag_format.result
        found = "\n".join(f"{tag_format.numbering.format(i)}{line}" for i, line in enumerate(lines, 1))
        return f"{a}{query}{b}\n\n{c}\n{found}\n{d}\n\n"

    loom = search(
        "inventor of the Brannel loom",
        "Brannel loom: The Brannel loom was invented by Teodor Askelund.",
    )
    orrby = search(
        "birthplace of Teodor Askelund",
        "Orrby: Orrby is a village in Tessmark, Velland. Teodor Askelund was born there in 1845.",
    )
    film = search(
        "year in which the film The Glass Meridian came out",
        "The Glass Meridian: The Glass Meridian is a film of 1927.",
    )
    return [
        Exemplar(
            "In which country was the inventor of the Brannel loom born?",
            f"{loom}The Brannel loom was invented by Teodor Askelund. {orrby}Teodor Askelund was born in Orrby in "
            "Velland. So the answer is Velland.",
        ),
        Exemplar(
            "Which film came out earlier, The Glass Meridian or Low Water?",
            f"The film Low Water came out in 1931. {film}The film The Glass Meridian came out in 1927. So the answer "
            "is The Glass Meridian.",
        ),
    ]


def _trained(tag_format: TagFormat, *, phrase: str, end: str, finish: str, think: str) -> AnswerPrompt:
    opening, closing = tag_format.call
    return AnswerPrompt(
        instructions=(
            f"Answer the question. {think} Whenever knowledge is missing, write {opening}query{closing}; what a search "
            f"engine finds for it will stand between {tag_format.result[0]} and {tag_format.result[1]}. You may search "
            f"several times. {finish}"
        ),
        answer_phrase=phrase,
        answer_end=end,
        stop=_STOP,
    )


_IN_TAGS = "When nothing is missing any more, write the short answer alone between <answer> and </answer>."
_PROMPTS = {
    SEARCH.name: _with_examples(SEARCH),
    SEARCH_O1.name: _trained(
        SEARCH_O1,
        phrase="\\boxed{",
        end="}",
        think="Reason step by step.",
        finish="When nothing is missing any more, give the short answer as \\boxed{answer}.",
    ),
    SEARCH_R1.name: _trained(
        SEARCH_R1,
        phrase="<answer>",
        end="</answer>",
        think="Reason between <think> and </think> first, and again whenever something new was found.",
        finish=_IN_TAGS,
    ),
    R1_SEARCHER.name: _trained(
        R1_SEARCHER,
        phrase="<answer>",
        end="</answer>",
        think="Reason between <think> and </think>, one fact after the other.",
        finish=_IN_TAGS,
    ),
}
