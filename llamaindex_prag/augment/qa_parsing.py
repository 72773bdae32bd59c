"""Parse questions with answers from a language model's reply, leniently.

    reply -> pairs (JSON fields | labelled lines | bare question lines) -> cleaned, self-contained, deduplicated

JSON is read field by field instead of as a whole: `"question": "..."` and `"answer": "..."` are found anywhere, so code
fences, missing or trailing commas, objects outside a list, and truncated replies need no special cases. Never raises,
whatever the text. Takes time linear in its length, and ignores everything past `MAX_REPLY` characters. Knows neither
prompts nor passages.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

from llamaindex_prag.augment.augmentation import QA

MAX_REPLY = 100_000
MAX_VALUE = 1_000
"""Maximum number of characters of a question or answer."""
_MAX_WORDS = 16
"""Questions with longer answers are dropped."""

_Pair = tuple[str, str, str]
"""Question, answer, full answer."""

_KEY = re.compile(r"""["']([^"'\n]{1,40}|[^"\n]{1,300}\?)["']\s{0,20}:\s{0,20}""")
_KINDS = {
    "question": "q",
    "q": "q",
    "query": "q",
    "answer": "a",
    "a": "a",
    "short_answer": "a",
    "response": "a",
    "full_answer": "f",
    "fullanswer": "f",
    "long_answer": "f",
    "complete_answer": "f",
}
_AFTER_VALUE = re.compile(r"""\s{0,20}(?:$|[}\]]|,?\s{0,20}\n|,\s{0,20}["'}\]]|["'][\w ]{1,40}["']\s{0,20}:)""")
_BARE_VALUE = re.compile(r"[^\s,}\]\"'\[{]{1,40}")
_LABEL = re.compile(
    r"(?i)(?:^[ \t>*_#•\-]{0,20}(?:\(?\d{1,3}[.):][ \t]{0,8})?[*_]{0,3}|(?<=[\s?.!*]))"
    r"(?P<kind>question|full[ _]answer|answer|[qa])"
    r"(?:[ \t]{0,3}#?\d{1,3}[*_]{0,3}[ \t]{0,3}[:.)]|[*_]{0,3}[ \t]{0,3}:)[*_]{0,3}",
    re.MULTILINE,
)
_NUMBER = re.compile(r"^\s{0,20}(?:\(?\d{1,3}[.):]|[-*•])\s{1,8}")
THOUGHT = re.compile(r"(?is)^.{0,200}?<think>.*?</think>")

_TEXT = r"(?:passage|text|document|article|paragraph|excerpt|context|information|story|extract|source|snippet)"
_GIVEN = r"(?:(?:the|this|that)\s+)(?:(?:given|above|provided|following|short|original)\s+)?"
_REFERENCE = re.compile(
    rf"(?i),?\s*\b(?:(?:according\s+to|based\s+on|as\s+(?:mentioned|stated|described|given|noted)\s+in|(?:mentioned|"
    rf"stated|described|given|listed|named)\s+in|in|from|by|per)\s+{_GIVEN}{_TEXT}(?:\s+(?:above|below|given))?)\b,?"
)
_DEPENDENT = re.compile(
    rf"(?i)\b(?:(?:this|the\s+(?:given|above|provided|following))\s+{_TEXT}|the\s+(?:passage|excerpt|paragraph|"
    rf"snippet)|the\s+(?:text|article|document|context)\b(?!\s+of)|{_TEXT}\s+above|the\s+above|mentioned\s+above|(?:of\s+)?the\s+following|this\s+question)\b"
)
_PRONOUN = re.compile(r"(?i)\b(?:he|she|it|they|him|her|his|hers|its|their|them|this|these|those)\b")
_NAME = re.compile(r"(?<=[\s\"'(])[A-Z\d]")
_PLACEHOLDER = re.compile(
    r"(?i)(?:n/?a|none|null|unknown|unclear|string|\.+|…|-+|_+|[<\[{(].*[>\]})]|not\s+(?:mentioned|specified|stated|"
    r"given|provided|known|available|applicable).*|(?:the|your)\s+(?:short\s+)?answer|no\s+(?:answer|information).*|(?:you|i)\s+can(?:no|')t.*|cannot\s.*)"
)
_QUESTION_MARKS = ("?", "\uff1f", "\u061f")


def parse_qas(reply: str, *, style: str = "", subject: str = "") -> list[QA]:
    """Return the questions with answers in a reply, in order.

    Args:
        reply: Any text.
        style: Stored in each `QA`.
        subject: What the questions are about, such as a title. It is put before a question that names nothing ("When
            was it built?"); without a subject, a question with such a pronoun is dropped.
    """
    found: dict[str, QA] = {}
    for qa in read_qas(reply, style=style, subject=subject):
        if qa is not None:
            found.setdefault(question_key(qa.question), qa)
    return list(found.values())


def read_qas(reply: str, *, style: str = "", subject: str = "") -> list[QA | None]:
    """Return an entry for everything in a reply that looks like a question; None if `parse_qas` drops it.

    The arguments are those of `parse_qas`, which also drops repetitions.
    """
    reply = THOUGHT.sub("", reply[:MAX_REPLY], count=1)
    forms = (_from_json, _from_labels, _from_lines)
    pairs = next((read for form in forms if (read := [pair for pair in form(reply) if pair[0]])), [])
    found: list[QA | None] = []
    for raw_question, raw_answer, raw_full in pairs:
        question, answer = _standing_alone(_plain(raw_question), subject), _plain(raw_answer)
        if question is None or not _is_answer(answer, question):
            found.append(None)
            continue
        full = " ".join(raw_full.split())
        found.append(QA(question, answer, "" if _PLACEHOLDER.fullmatch(full) else full, style, "model"))
    return found


def question_key(question: str) -> str:
    """Return a key that is equal for questions that differ only in case, spaces and punctuation."""
    return " ".join(re.findall(r"\w+", question.casefold()))


# ---------------------------------------------------------------------- three reply formats


def _from_json(reply: str) -> Iterator[_Pair]:
    fields = {"q": "", "a": "", "f": ""}
    position = 0
    while (key := _KEY.search(reply, position)) is not None:
        value, position = _value(reply, key.end())
        name = key[1].strip()
        if name.endswith(_QUESTION_MARKS):  # {"Who ...?": "..."}
            yield name, value, ""
            continue
        kind = _KINDS.get(name.lower().replace(" ", "_"))
        if kind is None:
            continue
        # A missing brace does not matter: the next question starts a new object.
        if kind == "q" or fields[kind]:
            yield fields["q"], fields["a"], fields["f"]
            fields = {"q": "", "a": "", "f": ""}
        fields[kind] = value
    yield fields["q"], fields["a"], fields["f"]


def _value(reply: str, start: int) -> tuple[str, int]:
    """Return the value that begins at `start`, and where to continue; the value is empty if it is not closed."""
    if reply[start : start + 1] == "[":  # a list of answers: use the first one
        start += 1 + (len(gap[0]) if (gap := re.compile(r"\s{1,20}").match(reply, start + 1)) else 0)
    quote = reply[start : start + 1]
    if quote not in ('"', "'"):
        bare = _BARE_VALUE.match(reply, start)
        if bare is None:
            return "", start
        return {"true": "yes", "false": "no", "null": ""}.get(bare[0].lower(), bare[0]), bare.end()
    end = start
    limit = min(len(reply), start + MAX_VALUE)
    while (end := reply.find(quote, end + 1, limit)) != -1:
        escaped = (end - start - 1 - len(reply[start + 1 : end].rstrip("\\"))) % 2 == 1
        # Quotation marks inside a value are often not escaped: a mark only closes it where a value may end.
        if not escaped and _AFTER_VALUE.match(reply, end + 1):
            return _unescaped(reply[start + 1 : end]), end + 1
    return "", start + 1


def _unescaped(raw: str) -> str:
    try:
        return str(json.loads('"' + re.sub(r'(?<!\\)"', '\\"', raw).replace("\\'", "'") + '"', strict=False))
    except ValueError:
        return raw.replace('\\"', '"')


def _from_labels(reply: str) -> Iterator[_Pair]:
    labels = list(_LABEL.finditer(reply))
    question = answer = full = ""
    for number, label in enumerate(labels):
        end = labels[number + 1].start() if number + 1 < len(labels) else len(reply)
        text = reply[label.end() : min(end, label.end() + MAX_VALUE)].strip()
        kind = label["kind"].lower()
        if kind.startswith("q"):
            yield question, answer, full
            question, answer, full = " ".join(text.split()), "", ""
        elif kind.startswith("a"):
            answer = answer or _first_line(text)
        else:
            full = full or _first_line(text)
    yield question, answer, full


def _from_lines(reply: str) -> Iterator[_Pair]:
    """Parse `1. Who ...? An answer`, or an answer on the line below its question."""
    waiting = ""
    for line in reply.splitlines():
        text = _NUMBER.sub("", line[:MAX_VALUE]).strip()
        if not text:
            continue
        cut = max(text.rfind(mark) for mark in _QUESTION_MARKS) + 1
        if not cut:
            yield waiting, text, ""
            waiting = ""
        elif rest := text[cut:].strip(" \t*_-–—:=>→|("):
            yield text[:cut], rest, ""
            waiting = ""
        else:
            waiting = text[:cut]


# ---------------------------------------------------------------------- filters


def _standing_alone(question: str, subject: str) -> str | None:
    question = _REFERENCE.sub("", question).strip(" ,")
    letters = sum(map(str.isalpha, question[:MAX_VALUE]))
    if letters < 4 or _DEPENDENT.search(question) or _PLACEHOLDER.fullmatch(question):
        return None
    question = question[0].upper() + question[1:]
    if not question.isascii():  # names and pronouns can be recognised in plain English only
        return question
    name, pronoun = _NAME.search(question), _PRONOUN.search(question)
    dangling = pronoun is not None and (name is None or pronoun.start() < name.start())
    if not dangling and name is not None:
        return question
    if subject.strip():
        named = question_key(subject) in question_key(question)
        return question if named else f"About {subject.strip()}: {question[0].lower()}{question[1:]}"
    return None if dangling else question


def _is_answer(answer: str, question: str) -> bool:
    if not any(map(str.isalnum, answer)) or _PLACEHOLDER.fullmatch(answer):
        return False
    if len(answer.split()) > _MAX_WORDS or len(answer) > 12 * _MAX_WORDS or _DEPENDENT.search(answer):
        return False
    # A question that contains its own answer teaches nothing.
    return f" {question_key(answer)} " not in f" {question_key(question)} "


def _plain(text: str) -> str:
    """Remove markup, surrounding quotation marks, and runs of whitespace."""
    text = re.sub(r"\*\*|__|`", "", " ".join(text[:MAX_VALUE].split())).strip(" *_")
    text = re.sub(r"^(?:[A-D]\)|[-–—•]) ", "", text)
    if len(text) > 1 and text[0] + text[-1] in ('""', "''", "“”", "«»"):
        text = text[1:-1].strip()
    return text.removesuffix(".").strip() if not re.search(r"\b\w\.\w?\.$|\b[A-Z]\.$|\.\.$", text) else text


def _first_line(text: str) -> str:
    return text.split("\n", 1)[0].strip() if text else ""
