"""The questions of a calibration, passed in or read from a file."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rag_backbone.documents import read_json_lines, read_text_file
from rag_backbone.errors import ConfigurationError
from rag_backbone.text.unicode import clean_data


@dataclass(frozen=True, slots=True)
class CalibrationQuestion:
    """A question, with its answers if they are known."""

    question: str
    answers: tuple[str, ...] = ()

    @classmethod
    def of(cls, value: CalibrationQuestion | str | Mapping[str, Any], where: str = "") -> CalibrationQuestion:
        """Convert a string, or a mapping with `question` and optionally `answers` (or `answer`).

        Args:
            value: The question.
            where: Prefix of error messages, such as the file and line.

        Raises:
            ConfigurationError: If the value is neither, or the question is empty.
        """
        if isinstance(value, CalibrationQuestion):
            return value
        value = clean_data(value, "a question")
        given: Mapping[str, Any] = {"question": value} if isinstance(value, str) else value
        question = given.get("question") if isinstance(given, Mapping) else None
        if not isinstance(question, str) or not question.strip():
            raise ConfigurationError(
                f"{where}{value!r} is not a question; a string, or an object with a string under 'question', is needed"
            )
        answers = given.get("answers", given.get("answer", ()))
        listed = [answers] if isinstance(answers, str) else answers
        if not isinstance(listed, list | tuple) or not all(isinstance(a, str) for a in listed):
            raise ConfigurationError(f"{where}the answers of {question!r} are {answers!r}; a list of strings is needed")
        return cls(question.strip(), tuple(a for a in listed if a.strip()))


def read_questions(path: str | Path, *, encoding: str | None = None) -> list[CalibrationQuestion]:
    """Return the questions of a file: `.jsonl` or `.json` with objects, or plain text with one question per line.

    Args:
        path: The file, in UTF-8 or with a byte-order mark.
        encoding: Encoding of a file that is neither.

    Raises:
        ConfigurationError: If the file is missing, or a line is not a question; the message names file and line.
    """
    file = Path(path)
    suffix = file.suffix.lower()
    if suffix == ".jsonl":
        return [
            CalibrationQuestion.of(value, f"{file}, line {number}: ")
            for number, value in read_json_lines(file, encoding)
        ]
    text = read_text_file(file, encoding)
    if suffix == ".json":
        try:
            value = json.loads(text)
        except ValueError as error:
            raise ConfigurationError(f"{file} is not valid JSON: {error}") from error
        if not isinstance(value, list):
            raise ConfigurationError(f"{file} holds a {type(value).__name__}; a list of questions is needed")
        return [CalibrationQuestion.of(entry, f"{file}, entry {i}: ") for i, entry in enumerate(value, 1)]
    # splitlines() would also split inside a question, at U+2028 and similar characters.
    return [CalibrationQuestion.of(line) for line in text.split("\n") if line.strip()]


def all_asked(values: Iterable[CalibrationQuestion | str | Mapping[str, Any]]) -> list[CalibrationQuestion]:
    """Convert and check the questions of a calibration.

    Raises:
        ConfigurationError: If one is invalid, or there are fewer than two.
    """
    asked = [CalibrationQuestion.of(v) for v in values]
    if len(asked) < 2:
        raise ConfigurationError(
            f"there is {len(asked)} question; calibration needs at least 2, and 30 are better than 10"
        )
    return asked
