"""Questions about a passage without a model: blanks for its names, dates, years and numbers.

    sentence -> facts (spans that can be asked about) -> "Fill in the blank: ..." and, where the pattern is certain,
    "In which year was ... built?", "Who founded ...?", "How many ... does ... have?"

The patterns are English; in other languages, names and numbers are found where they look the same. A passage without
any, such as one in a script without capitals, gives no question, and `passage_question` is the fallback. The same
passage always gives the same questions. Knows no models.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from llamaindex_prag.augment.augmentation import QA
from llamaindex_prag.augment.qa_parsing import question_key
from rag_backbone.text.units import sentences, stop_words

BLANK = "___"
MAX_TEXT = 50_000
"""Maximum number of characters of a passage that are searched."""
_REACH = 160  # characters of the sentence shown on each side of a blank

_MONTHS = "January|February|March|April|May|June|July|August|September|October|November|December"
_DAYS = "Monday|Tuesday|Wednesday|Thursday|Friday|Saturday|Sunday"
_TENS = "twenty|thirty|forty|fifty|sixty|seventy|eighty|ninety"
_UNITS = "two|three|four|five|six|seven|eight|nine"
_CAP = r"[^\W\d_a-zß-öø-ÿа-яё][\w'\u2019]*(?:-\w+)*"  # begins with a capital letter, or one of a script without case
_JOIN = r"(?:of|the|de|von|van|der|del|di|la|le|du|al|bin)"
_FACT = re.compile(
    rf"(?P<date>\b\d{{1,2}}\s(?:{_MONTHS})(?:,?\s\d{{3,4}})?\b|\b(?:{_MONTHS})\s\d{{1,2}}(?:,\s\d{{3,4}})?\b)"
    r"|(?P<year>\b(?:1\d{3}|20\d{2})\b(?![.,]\d))"
    r"|(?P<number>\b\d{1,9}(?:[.,]\d{1,9}){0,4}\b)"
    rf"|(?P<word>\b(?:(?:{_TENS})(?:-(?:one|{_UNITS}))?|{_UNITS}|ten|eleven|twelve|\w{{3,5}}teen)\b"
    r"(?:\s(?:hundred|thousand|million))?)"
    rf"|(?P<name>\b{_CAP}(?:\s(?:{_JOIN}\s){{0,2}}{_CAP}){{0,5}})"
)
_PARTICIPLES = (
    "founded|built|opened|created|established|completed|finished|published|discovered|designed|invented|launched|"
    "introduced|constructed|described|painted|installed"
)
_SUBJECT = rf"(?P<subject>(?:The\s)?{_CAP}(?:\s(?:of\sthe\s|of\s)?{_CAP}){{0,4}})"
_IN_YEAR = re.compile(
    rf"^{_SUBJECT}\s(?P<was>was|were)\s(?P<verb>{_PARTICIPLES}|born|closed|demolished)\b"
    r"(?P<middle>(?:\s[\w'\u2019\-]+){0,8}?)\sin\s(?P<year>1\d{3}|20\d{2})\b"
)
_BY_WHOM = re.compile(
    rf"^{_SUBJECT}\s(?:was|were)\s(?P<verb>{_PARTICIPLES})\b(?P<middle>(?:\s(?:in|on|at)\s[\w'\u2019\-]+(?:\s{_CAP})?)?)\sby\s"
    rf"(?:the\s[a-z]+\s)?(?P<who>{_CAP}(?:\s{_CAP}){{0,3}})(?=[.,;]|\s(?:in|and|on)\b|$)"
)
_HOW_MANY = re.compile(
    rf"^{_SUBJECT}\s(?P<has>has|have|had)\s(?P<about>about\s|some\s|around\s)?(?P<count>\d[\d,.]*\d|\d)\s(?P<what>[a-z]+s)\b"
)
_IT = re.compile(r"^(?:It|He|She|They|This|These|That|There)\s(?=was\b|were\b|has\b|had\b|have\b)")


class _Fact(NamedTuple):
    start: int
    end: int
    certainty: int
    """Rank of the fact; 0 is asked about first."""


def cloze_questions(text: str, n: int, *, title: str = "") -> list[QA]:
    """Return at most `n` questions, spread over the passage's sentences.

    Args:
        text: The passage.
        n: Number of questions; fewer if the passage has fewer facts.
        title: The passage's title, added to questions about sentences that do not name it.
    """
    text = text[:MAX_TEXT]
    said = [" ".join(text[s.start : s.end].split()) for s in sentences(text)]
    known = _known_names(said, title)
    rounds: list[list[QA]] = []
    for number, sentence in enumerate(said):
        questions = [*_wh(sentence, said[number - 1] if number else "", title), *_blanks(sentence, title, known)]
        for depth, qa in enumerate(questions):
            if depth == len(rounds):
                rounds.append([])
            rounds[depth].append(qa)
    chosen: dict[str, QA] = {}
    for candidates in rounds:
        fresh = {k: qa for qa in candidates if (k := question_key(qa.question)) not in chosen}
        chosen.update((question_key(qa.question), qa) for qa in _spread(list(fresh.values()), n - len(chosen)))
    return list(chosen.values())


def passage_question(title: str, text: str) -> QA:
    """Return the fallback for a passage without anything to ask about: the passage itself is the answer."""
    text = " ".join(text.split())
    if title.strip():
        return QA(f"What is known about {title.strip()}?", text, text, "passage", "passage")
    begun = " ".join(text.split(" ")[:6])[:80]
    return QA(f'Which text begins with "{begun}"?', text, text, "passage", "passage")


# ---------------------------------------------------------------------- blanks


def _blanks(sentence: str, title: str, known: frozenset[str]) -> Iterator[QA]:
    for fact in sorted(_facts(sentence, known), key=lambda f: (f.certainty, f.start)):
        answer = sentence[fact.start : fact.end]
        shown = _around(sentence, fact)
        shown = re.sub(rf"(?<!\w){re.escape(answer)}(?!\w)", BLANK, shown)
        if len(re.findall(r"\w+", shown.replace(BLANK, ""))) < 3:
            continue
        named = not title or _same(answer, title) or title.casefold() in shown.casefold()
        about = "" if named else f" about {title}"
        yield QA(f'Fill in the blank{about}: "{shown}"', answer, sentence, "cloze", "cloze")


def _facts(sentence: str, known: frozenset[str]) -> Iterator[_Fact]:
    for match in _FACT.finditer(sentence):
        kind, start, end = match.lastgroup, match.start(), match.end()
        if kind == "name":
            trimmed = _name(sentence, start, end, known)
            if trimmed is not None:
                yield _Fact(*trimmed, 0)
        else:
            yield _Fact(start, end, 2 if kind == "word" else 1)


def _name(sentence: str, start: int, end: int, known: frozenset[str]) -> tuple[int, int] | None:
    """Return a name without a leading function word; None if it is only capitalised as the sentence's first word."""
    listed = stop_words() | {"every"}
    opens = not re.search(r"\w", sentence[:start])
    words = sentence[start:end].split(" ")
    while words and words[0].casefold().replace("\u2019", "'") in listed:
        start += len(words[0]) + 1
        words = words[1:]
        opens = False
    if not words or re.fullmatch(rf"(?:{_MONTHS}|{_DAYS})", " ".join(words)):
        return None
    for ending in ("'s", "\u2019s"):
        end -= len(ending) if sentence[start:end].endswith(ending) else 0
    if end - start < 2 or not sentence[start].isupper():
        return None
    return (start, end) if not opens or len(words) > 1 or words[0].casefold() in known else None


def _known_names(said: list[str], title: str) -> frozenset[str]:
    """Return words that are capitalised inside a sentence or occur in the title: names wherever they occur."""
    inside = (m[0] for s in said for m in re.finditer(rf"(?<=[\w,;]\s){_CAP}", s))
    return frozenset(word.casefold() for word in (*inside, *title.split()))


def _around(sentence: str, fact: _Fact) -> str:
    """Return the sentence, or the part of a very long one around the fact."""
    first = 0 if fact.start <= _REACH else sentence.rfind(" ", 0, fact.start - _REACH) + 1
    last = len(sentence) if len(sentence) - fact.end <= _REACH else sentence.find(" ", fact.end + _REACH)
    last = len(sentence) if last == -1 else last
    if last - first > 4 * _REACH:  # no spaces to cut at
        first, last = max(0, fact.start - _REACH), fact.end + _REACH
    return ("... " if first else "") + sentence[first:last] + (" ..." if last < len(sentence) else "")


# ---------------------------------------------------------------------- certain patterns


def _wh(sentence: str, before: str, title: str) -> Iterator[QA]:
    """Yield questions with a question word, where subject, verb and answer follow each other."""
    named = sentence
    opening = re.match(rf"(?:The\s)?{re.escape(title)}\s(?:[a-z]|\()", before) if title else None
    if opening is not None:  # "It" right after a sentence about the title refers to the title
        named = _IT.sub(lambda _: opening[0][:-1], sentence)
    if _IT.match(named):
        return
    if found := _IN_YEAR.search(named):
        subject = _mid_sentence(found["subject"])
        question = f"In which year {found['was']} {subject} {found['verb']}{found['middle']}?"
        yield QA(question, found["year"], named, "cloze", "cloze")
    if found := _BY_WHOM.search(named):
        question = f"Who {found['verb']} {_mid_sentence(found['subject'])}{found['middle']}?"
        yield QA(question, found["who"], named, "cloze", "cloze")
    if found := _HOW_MANY.search(named):
        does = {"has": "does", "have": "do", "had": "did"}[found["has"]]
        question = f"How many {found['what']} {does} {_mid_sentence(found['subject'])} have?"
        yield QA(question, found["count"], named, "cloze", "cloze")


def _mid_sentence(subject: str) -> str:
    return "the " + subject[4:] if subject.startswith("The ") else subject


def _same(one: str, other: str) -> bool:
    return question_key(one).removeprefix("the ") == question_key(other).removeprefix("the ")


def _spread(items: list[QA], n: int) -> list[QA]:
    """Return `n` of the items, evenly spaced."""
    if len(items) <= n:
        return items
    return [items[i * len(items) // n] for i in range(max(n, 0))]
