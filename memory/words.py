"""What counts as a word, in what is remembered and in what is asked for. Pure functions.

PostgreSQL's own parser takes `123-45` for the numbers 123 and -45, reads paths and hosts into prose, leaves a sentence
of Chinese as one word, and lowers only what the database's locale knows. So that a search finds the same on every
server, texts and queries are both cut here; PostgreSQL gets plain words, and takes their endings off.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import regex

START = 3  # letters of a word that other forms of it have too, as a rule
LONGEST = 60  # characters of a word; PostgreSQL would take 2,046 bytes
POSITIONS = 16_000  # PostgreSQL counts the words of a document no further than 16,383
BYTES = 300_000  # of words in one part of a document: two parts stay below the 1 MB that PostgreSQL takes
QUERY_CHARACTERS = 2_000  # of a query that are looked at
QUERY_TERMS = 32

# Written without blanks: each character counts as a word, and a run of them as a phrase.
_UNSPACED = r"\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}"
_WORD = regex.compile(
    rf"(?V1)[{_UNSPACED}]\p{{M}}*|[[\p{{L}}\p{{N}}]--[{_UNSPACED}]][[\p{{L}}\p{{M}}\p{{N}}]--[{_UNSPACED}]]*"
)
_ASCII_WORD = re.compile(r"[A-Za-z0-9]+")
# Marks that people leave out when they type: accents, Arabic and Hebrew vowels. In other scripts they are letters.
_MARKS = regex.compile(r"(?<=[\p{Latin}\p{Greek}])\p{Mn}+|[\u0591-\u05c7\u0640\u064b-\u065f\u0670]")
# Letters that do not come apart into a plain one and a mark: Cyrillic yo, dotless i, o and l and d with a stroke.
_SAME = str.maketrans("\u0451\u0131\u00f8\u0142\u0111", "\u0435iold")
_NO_LETTER = regex.compile(r"[^\p{L}\p{M}\p{N}]+")
_TERM = re.compile(r'(?P<without>-?)(?:"(?P<phrase>[^"]*)"|(?P<plain>[^\s"]+))')
_QUOTES = str.maketrans("“”„«»", '"""""')


@dataclass(frozen=True, slots=True)
class Query:
    """What is asked for: each term is a word, or several in a row. A session fits if it has all that is `wanted` and
    nothing of what is `unwanted`."""

    wanted: tuple[tuple[str, ...], ...] = ()
    unwanted: tuple[tuple[str, ...], ...] = ()

    @property
    def starts(self) -> tuple[str, ...]:
        """How the words that are wanted begin."""
        return tuple(dict.fromkeys(word[:START] for term in self.wanted for word in term))

    @property
    def in_a_row(self) -> bool:
        """Whether it matters which word follows which."""
        return any(len(term) > 1 for term in (*self.wanted, *self.unwanted))

    @property
    def websearch(self) -> str:
        """For PostgreSQL's websearch_to_tsquery. Every term is in quotes, so that none is taken for an operator."""
        terms = [f'"{" ".join(term)}"' for term in self.wanted]
        return " ".join([*terms, *(f'-"{" ".join(term)}"' for term in self.unwanted)])

    @property
    def words_alone(self) -> str:
        """The same without what it says of words in a row: whatever fits the question, fits this too."""
        each = tuple(dict.fromkeys((word,) for term in self.wanted for word in term))
        return Query(each, tuple(term for term in self.unwanted if len(term) == 1)).websearch


def words(text: str) -> list[str]:
    """The words of `text`, folded."""
    if text.isascii():
        return [word[:LONGEST] for word in _ASCII_WORD.findall(text.lower())]
    return [word for _, _, word in placed_words(text)]


def placed_words(text: str) -> Iterator[tuple[int, int, str]]:
    """Each word of `text`: where it begins, where it ends, and the word, folded."""
    for match in (_ASCII_WORD if text.isascii() else _WORD).finditer(text):
        if word := fold(match.group()):
            yield match.start(), match.end(), word


def fold(word: str) -> str:
    """A word without case, accents and compatibility forms, at most LONGEST characters of it."""
    if word.isascii():
        return word.lower()[:LONGEST]
    plain = unicodedata.normalize("NFD", unicodedata.normalize("NFKC", word).casefold())
    folded: str = _NO_LETTER.sub("", unicodedata.normalize("NFC", _MARKS.sub("", plain)).translate(_SAME))
    return folded[:LONGEST]


def indexable(texts: Iterable[str]) -> str:
    """The words of all `texts`, as PostgreSQL can index them as one part of a document.

    What is beyond the words that it can tell the place of is there once: it is found, but in no phrase.
    """
    found = [word for text in texts for word in words(text)]
    if len(found) > POSITIONS:
        found = found[:POSITIONS] + list(dict.fromkeys(found[POSITIONS:]))
    text = " ".join(found)
    return text if len(text) <= BYTES // 4 else text.encode()[:BYTES].decode(errors="ignore")


def parse(query: str) -> Query:
    """What a person's `query` asks for: words, "several in a row", -not_this. Whatever is given, it never raises; a
    query without a word to look for asks for nothing."""
    wanted: list[tuple[str, ...]] = []
    unwanted: list[tuple[str, ...]] = []
    for match in _TERM.finditer(query[:QUERY_CHARACTERS].translate(_QUOTES)):
        if term := tuple(words(match["phrase"] or match["plain"] or "")):
            (unwanted if match["without"] else wanted).append(term)
    return Query(tuple(dict.fromkeys(wanted[:QUERY_TERMS])), tuple(dict.fromkeys(unwanted[:QUERY_TERMS])))
