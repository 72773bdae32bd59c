"""Writing systems: letters with their marks, scripts without spaces, and the form in which words are compared.

The patterns are for the `regex` package, which supports Unicode properties; with `re`, a word would end at every vowel
sign. Knows nothing of models, languages or documents.
"""

from __future__ import annotations

import re
import unicodedata
from itertools import accumulate

import regex

# Characters that belong to the letter before them: marks, joiners, halfwidth voicing marks, soft hyphens.
_MARKS = r"[\p{M}\p{Grapheme_Extend}\u200d\u00ad]*"
_LETTER = r"[\p{L}\p{N}_]" + _MARKS
_PAIRED = r"[\p{scx=Han}\p{scx=Hiragana}\p{scx=Katakana}\p{scx=Bopomofo}]"
# The line-breaking classes of scripts without spaces: Thai, Lao, Khmer, Burmese; Javanese and related scripts.
_SPELT = r"[\p{lb=SA}\p{lb=AK}\p{lb=AS}]"

SPACELESS = rf"(?:(?={_PAIRED}|{_SPELT}){_LETTER})+"
"""Pattern of a run of letters in scripts that put no spaces between words."""
SPACED = rf"(?:(?!{_PAIRED}|{_SPELT}){_LETTER})+"
"""Pattern of a run of letters and digits in all other scripts."""

_letter = regex.compile(_LETTER)
_run = regex.compile(rf"(?P<paired>(?:(?={_PAIRED}){_LETTER})+)|(?P<spelt>(?:(?={_SPELT}){_LETTER})+)|{SPACED}")
_ascii_run = re.compile(r"\w+")
# NFKC expands these to letters or digits, which must not join the word before them: Widget(tm), 1(1/2).
_composite = regex.compile(r"[\p{S}\p{Decomposition_Type=Fraction}]")
# Marks that are often omitted in these scripts, the dot of a lower-cased Turkish I, the stretching of Arabic letters,
# and invisible characters. A zero-width space counts as a space, except in scripts without spaces.
_ignored = regex.compile(
    r"(?<=[\p{Greek}\p{Hebrew}\p{Arabic}]\p{M}*)\p{M}|(?<=i)\u0307|\u0640"
    rf"|(?!\u200b)\p{{Default_Ignorable_Code_Point}}|(?<={_SPELT}\p{{M}}*)\u200b"
)
_digit = regex.compile(r"(?![0-9])\p{Nd}")
# Only Turkish lower-cases I to a dotless i; Persian keyboards write yeh and kaf in either form.
_SAME = str.maketrans({"\u0131": "i", "\u06cc": "\u064a", "\u0649": "\u064a", "\u06a9": "\u0643"})


# Scripts in which joiners change the shape of letters: cursive (Arabic, Mongolian), or with conjuncts (Indic).
_SHAPED = r"(?:[\p{Joining_Type=D}\p{Joining_Type=R}\p{Joining_Type=L}]|(?=[\p{L}\p{M}])\P{InSC=Other})"
_PICTURE = r"\p{Extended_Pictographic}[\ufe0f\p{Emoji_Modifier}]*"
_invisible = regex.compile(
    # Kept, in this order: flags of regions; a joiner between pictures; one joiner in a word whose shape it changes; a
    # zero-width space in scripts without spaces; visible signs that count as format characters.
    "(?P<kept>\U0001f3f4[\U000e0030-\U000e0039\U000e0061-\U000e007a]{2,6}\U000e007f"
    rf"|(?<={_PICTURE})\u200d(?=\p{{Extended_Pictographic}})"
    rf"|(?<={_SHAPED}\p{{M}}*)[\u200c\u200d]|(?<={_SPELT}\p{{M}}*)\u200b(?={_SPELT})"
    r"|\p{Prepended_Concatenation_Mark}|(?<=\p{Mongolian}\p{M}*)\u180e)"
    r"|[\p{Cc}\p{Cf}\p{Cs}\p{Co}]"
)
# A second variation selector has no effect, and a run of them can carry invisible text.
_selectors = regex.compile(r"(?<=[\ufe00-\ufe0f\U000e0100-\U000e01ef])[\ufe00-\ufe0f\U000e0100-\U000e01ef]")


def visible(text: str) -> str:
    """Return a text without control, format and private-use characters, except those that affect what is read.

    Kept are joiners that change the shape of a word (Persian, Sinhala) or combine several pictures into one, the tags
    of regional flags, and zero-width spaces between words of Thai, Lao, Khmer and Burmese. Direction characters, and
    tags and joiners anywhere else, could hide text from a reader and are removed.
    """
    if text.isascii() and text.isprintable():
        return text
    return _selectors.sub("", _invisible.sub(lambda m: m["kept"] or "", text))


def letters(text: str) -> list[str]:
    """Return the letters and digits of a text, each with its marks."""
    return [m[0] for m in _letter.finditer(text)]


def fold(text: str) -> str:
    """Return a text in the form in which words are compared; it is not meant to be displayed.

    Variants that readers treat as the same become equal: composed and decomposed (NFC, NFD), full-width and half-width,
    upper and lower case, Greek final sigma, German ß, Turkish i, digits of any script, vocalised Hebrew and Arabic,
    accented Greek, with and without joiners.
    """
    if text.isascii():
        return text.lower()
    text = unicodedata.normalize("NFKC", _composite.sub(r" \g<0> ", text)).casefold()
    text = _ignored.sub("", unicodedata.normalize("NFD", text)).translate(_SAME)
    return unicodedata.normalize("NFKC", _digit.sub(lambda m: str(unicodedata.digit(m[0])), text))


def search_terms(text: str, *, indexing: bool) -> list[str]:
    """Return the terms by which a text is found: its words, folded.

    In scripts without spaces, words could only be found with a dictionary, which does not contain names. There the
    terms are pairs of letters (Chinese, Japanese) or triples (Thai, Lao, Khmer, Burmese, ...), as in Lucene's CJK
    analyzer.

    Args:
        text: A document or a query.
        indexing: Whether the text is a document. If so, shorter sequences of letters are terms too, so that a query of
            a single letter finds it.
    """
    folded = fold(text)
    if folded.isascii():
        return _ascii_run.findall(folded)
    found: list[str] = []
    for match in _run.finditer(folded):
        if match.lastgroup is None:
            found.append(match[0])
        else:
            found.extend(_sequences(letters(match[0]), 2 if match["paired"] else 3, all_lengths=indexing))
    return found


def spaceless_words(run: str) -> list[int]:
    """Return where each word of a run of `SPACELESS` letters ends, by ICU's dictionaries; never inside a letter."""
    from icu4py.breakers import WordBreaker

    # Look up the composed form, so that both forms of a text have the same words.
    here = there = 0
    end_here: dict[int, int] = {}
    composed = []
    for letter in letters(run):
        composed.append(unicodedata.normalize("NFC", letter))
        here, there = here + len(letter), there + len(composed[-1])
        end_here[there] = here
    # Count the pieces, because ICU's offsets are in UTF-16.
    ends = accumulate(map(len, WordBreaker("".join(composed), "und")))
    return [end_here[end] for end in ends if end in end_here]


def _sequences(of: list[str], n: int, *, all_lengths: bool) -> list[str]:
    n = min(n, len(of))
    lengths = range(1, n + 1) if all_lengths else (n,)
    return ["".join(of[i : i + length]) for length in lengths for i in range(len(of) - length + 1)]
