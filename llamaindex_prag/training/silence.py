"""Questions about other documents, at which an adapter learns to change nothing.

An adapter that only ever sees questions about its own document answers every question, also one about a document that
it has never seen. Two kinds of questions teach it the difference. The base model answers them without a passage, and
the adapter learns its distributions:

    other documents    questions by rule about a fixed set of passages, the same for every adapter
    other names        the document's own questions, with every name replaced by one that the document does not mention

The second kind differs from a question that the adapter does know in nothing but what it is about. It needs names that
are written with capitals; in other scripts all questions are of the first kind. Knows no models.
"""

from __future__ import annotations

import functools
import random
import re
from collections.abc import Sequence

from llamaindex_prag.augment.rules.questions import rule_questions

_WRITTEN = """
Corvane Lighthouse: The Corvane Lighthouse was built in 1871 by the engineer Ruth Hallam on the cape of Dunmere. Its
lamp can be seen for nineteen miles. In 1932 a storm carried away the keeper's cottage, and since 1988 the lighthouse
has been run from the harbour office in Pell.

Varrick Glass Company: The Varrick Glass Company was founded in 1904 by the brothers Emil and Tobias Varrick in
Senholm. It employed 340 people in its best year and made lenses for microscopes. The company was sold to a rival in
1967, and its archive is kept by the city museum.

Maren Iversholt: Maren Iversholt (1902 to 1979) was a chemist who was born in Tollby. She discovered two salts of the
metal terbium and taught at the University of Gravik for thirty years. Her daughter Signe became a judge.

Battle of Quern Ford: The Battle of Quern Ford was fought in March 1461 between the dukes of Arlen and the town of
Hask. About 1,200 men died. The victory gave Arlen the bridge over the river Quern, which it held until 1503.

Lesser reed owl: The lesser reed owl is a bird of marshes that weighs about 160 grams. It lays four to six eggs in
April and feeds on voles and large beetles. Its call was first recorded by Anton Breck in 1954 near Lake Osmer.

Harvest of Salt: Harvest of Salt is a novel by Delia Marchetti that was published in 1938. It tells the story of a
family of fishermen in Porto Bravo and won the Lantern Prize. A film of it was directed by Otto Lind in 1961.

Kessel Valley Railway: The Kessel Valley Railway runs for 47 kilometres from Brand to Upper Kessel. It was opened in
1889, has eleven tunnels and was electrified in 1926. The steepest part climbs 38 metres in every kilometre.

Oranta Basin: The Oranta Basin is a dry plain in the north of Sulmara with an area of 9,400 square kilometres. Rain
falls on twenty days of the year. Its only town, Teshk, lives on a mine of potash that was opened in 1973.

Team Vantaro: Team Vantaro is a cycling team from the city of Lusk. It won its first stage race in 2006 with the
sprinter Paolo Denk, who later became its manager. The team rides bicycles made by Corbin and wears green.

Hollin process: The Hollin process removes sulphur from coal gas with a solution of iron salts. It was described by
the engineer Margaret Hollin in 1911 and first used in the gasworks of Denby. A plant needed four workers.

Saint Orin's Abbey: Saint Orin's Abbey was founded by monks from Vell in 1127. The church is 74 metres long, and its
bell weighs three tonnes. King Alder gave the abbey the village of Thorpe, whose mill it kept until 1540.

Parliament Act of Corrin: The Parliament Act of Corrin gave women the vote in 1917. It was proposed by Edith Vance and
passed by 61 votes to 44. The upper chamber, whose members sat for life, was abolished nine years later.
"""
_PASSAGES = tuple(" ".join(lines.split()).split(": ", 1) for lines in _WRITTEN.strip().split("\n\n"))
"""Title and text of passages whose subjects do not exist."""
_NAME = re.compile(r"\b[A-Z][\w'’-]*(?: (?:of |the |and )?[A-Z0-9][\w'’-]*)*")
_FIRST_WORD = re.compile(r"^[A-Z][a-z]+\b")


def silent_questions(text: str, questions: Sequence[str], n: int, *, seed: int = 0) -> list[str]:
    """Return `n` questions that a document does not answer.

    Args:
        text: The document.
        questions: Questions about it; half of the result is made from these.
        n: Number of questions.
        seed: The same arguments always give the same questions.
    """
    rng = random.Random(f"{seed}/{text}")  # noqa: S311
    names = [title for title, _ in _PASSAGES if title not in text]
    renamed: list[str] = []
    for question in rng.sample(list(questions), len(questions)):
        if len(renamed) == n // 2:
            break
        if (other := _renamed(question, names, rng)) is not None:
            renamed.append(other)
    of_others = list(_questions())
    return [*renamed, *rng.sample(of_others, min(n - len(renamed), len(of_others)))]


def _renamed(question: str, names: Sequence[str], rng: random.Random) -> str | None:
    """Return the question with its names replaced, each by another; None if it has no name."""
    found = {match.group() for match in _NAME.finditer(question)} - set(_FIRST_WORD.findall(question))
    if not found or len(found) > len(names):
        return None
    others = dict(zip(sorted(found), rng.sample(list(names), len(found)), strict=True))
    return _NAME.sub(lambda match: others.get(match.group(), match.group()), question)


@functools.cache
def _questions() -> tuple[str, ...]:
    return tuple(qa.question for title, text in _PASSAGES for qa in rule_questions(text, 8, title=title))
