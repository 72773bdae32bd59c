"""Questions about what an English sentence says aside, in brackets or between commas.

    "Ida Brandt (3 May 1870, Varn - 1911) ..."   ->  "When was Ida Brandt born?", "Where was Ida Brandt born?"
    "Ida Brandt, the engineer of the bridge, ..."  ->  "Who is the engineer of the bridge?"
    "Her father, Ole Brandt, ..."                ->  "Who is Ida Brandt's father?"

Clauses have a verb each, and these have none. Knows no models.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import takewhile

from llamaindex_prag.augment.rules.clauses import core_of
from llamaindex_prag.augment.rules.tagged_words import DATE, Word, tagged

_WHEN = rf"(?:{DATE.pattern}|\b[12]?\d{{3}}\b)"
_PLACE = r"[^\W\d_][^\d()–;]*?"
_LIVED = re.compile(
    rf"\((?:born\s|b\.\s)?(?:(?P<born>{_WHEN}),?\s?)?(?:in\s|at\s)?(?P<there>{_PLACE})?(?:\son\s(?P<on>{_WHEN}))?"
    rf"(?:\s?[–-]\s?(?P<died>{_WHEN}),?\s?(?:in\s|at\s)?(?P<where>{_PLACE})?)?\)"
)
_NOUNS = ("NN", "NNS")
_NAMED = ("NNP", "NNPS", "POS")
_ENDS = (",", ".", ";", ")")


def aside_questions(sentence: str, title: str, *, person: bool) -> Iterator[tuple[str, str]]:
    """Yield pairs of a question, without its question mark, and the answer as the sentence has it.

    Args:
        sentence: The sentence.
        title: What the passage is about, which stands for pronouns; may be empty.
        person: Whether the passage is about a person. Otherwise years in brackets are no life, and names are asked for
            with "what".
    """
    words, which = tagged(sentence), "who" if person else "what"
    if person:
        yield from _lives(sentence, words)
    for i, word in enumerate(words):
        if word.text == "," and 0 < i < len(words) - 1:
            yield from _apposed(sentence, title, which, words[:i], words[i + 1 :])


def _lives(sentence: str, words: Sequence[Word]) -> Iterator[tuple[str, str]]:
    for found in _LIVED.finditer(sentence):
        name = _last_name([w for w in words if w.end <= found.start()])
        died, born = found["died"], found["born"] or found["on"]
        if not name or not (died or (born and "born" in found[0])):
            continue
        for asked, answer in (
            (f"when was {name} born", born),
            (f"where was {name} born", found["there"] if born else None),
            (f"when did {name} die", died),
            (f"where did {name} die", found["where"]),
        ):
            if answer:
                yield asked, answer.strip(" ,")


def _apposed(
    sentence: str, title: str, which: str, before: Sequence[Word], after: Sequence[Word]
) -> Iterator[tuple[str, str]]:
    """Yield questions about two noun phrases with a comma between them, of which one names the other."""
    end = next((i for i, w in enumerate(after) if w.tag == "PUNCT"), len(after))
    told = after[:end]
    if not told or (end < len(after) and after[end].text not in _ENDS):
        return
    if all(w.tag in _NAMED for w in told) and before[-1].tag in _NOUNS:  # "her father, Ole Brandt"
        role = list(before[-1:])
        for word in reversed(before[:-1]):
            if word.tag not in (*_NOUNS, *_NAMED, "JJ", "PRP$"):
                break
            role.insert(0, word)
        owner = [w for w in role if w.tag in ("POS", "PRP$")]
        if owner:
            asked = _owned(sentence, title, role)
            yield f"{which} is {asked}", _said(sentence, told)
            yield f"what is the name of {asked}", _said(sentence, told)
        return
    name = _last_name(before)
    if name and told[0].tag == "DT" and len(core_of(told)) > 1 and not any(w.tag.startswith(("V", "W")) for w in told):
        role = [told[0], *core_of(told)]  # "Ida Brandt, the engineer of the bridge"
        yield f"{which} is {_said(sentence, role)}", name
        yield f"{which} is {name}", _said(sentence, core_of(told))


def _owned(sentence: str, title: str, role: Sequence[Word]) -> str:
    said = _said(sentence, role)
    if role[0].tag != "PRP$":
        return said
    return f"{title}'s{said[len(role[0].text) :]}" if title else said


def _last_name(words: Sequence[Word]) -> str:
    """Return the name that the words end with; empty if they do not."""
    name = list(takewhile(lambda w: w.tag == "NNP", reversed(words)))
    return " ".join(w.text for w in reversed(name))


def _said(sentence: str, words: Sequence[Word]) -> str:
    return " ".join(sentence[words[0].start : words[-1].end].split())
