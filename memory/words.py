"""Cuts texts and queries into words, for the search in what is remembered. Pure functions.

PostgreSQL's own parser reads `123-45` as the numbers 123 and -45, finds paths and hosts in prose, takes a sentence of
Chinese for one word, and lowers only the letters that the database's locale knows. So that a search finds the same on
every server, texts and queries are both cut here; PostgreSQL gets plain words, and only removes their endings.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import regex

PREFIX = 3  # first letters of a word, which its other forms share as a rule
LONGEST = 60  # characters of a word; PostgreSQL would take 2,046 bytes
POSITIONS = 16_000  # words of a document; PostgreSQL counts them up to 16,383
BYTES = 300_000  # of words in one part of a document: two parts stay below the 1 MB that PostgreSQL takes
QUERY_CHARACTERS = 2_000  # of a query; the rest is ignored
QUERY_TERMS = 32

# Scripts written without blanks: each character counts as a word, and a run of characters as a phrase.
_UNSPACED = r"\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}"
_WORD = regex.compile(
    rf"(?V1)[{_UNSPACED}]\p{{M}}*|[[\p{{L}}\p{{N}}]--[{_UNSPACED}]][[\p{{L}}\p{{M}}\p{{N}}]--[{_UNSPACED}]]*"
)
_ASCII_WORD = re.compile(r"[A-Za-z0-9]+")
# Marks that people omit when they type: accents, Arabic and Hebrew vowels. In other scripts marks are letters.
_MARKS = regex.compile(r"(?<=[\p{Latin}\p{Greek}])\p{Mn}+|[\u0591-\u05c7\u0640\u064b-\u065f\u0670]")
# Letters that Unicode does not decompose into a plain one and a mark: Cyrillic yo, dotless i, o, l, d with a stroke.
_SAME = str.maketrans("\u0451\u0131\u00f8\u0142\u0111", "\u0435iold")
_NO_LETTER = regex.compile(r"[^\p{L}\p{M}\p{N}]+")
_TERM = re.compile(r'(?P<without>-?)(?:"(?P<phrase>[^"]*)"|(?P<plain>[^\s"]+))')
_QUOTES = str.maketrans("“”„«»", '"""""')


@dataclass(frozen=True, slots=True)
class WordQuery:
    """A search query: a conversation matches if it contains every wanted term and no unwanted one.

    Each term is a tuple of words: one word, or a phrase (several words in a row).
    """

    wanted: tuple[tuple[str, ...], ...] = ()
    unwanted: tuple[tuple[str, ...], ...] = ()

    @property
    def prefixes(self) -> tuple[str, ...]:
        """Return the first letters of each wanted word."""
        return tuple(dict.fromkeys(word[:PREFIX] for term in self.wanted for word in term))

    @property
    def has_phrases(self) -> bool:
        """Return whether a term is a phrase."""
        return any(len(term) > 1 for term in (*self.wanted, *self.unwanted))

    @property
    def websearch(self) -> str:
        """Return the query for PostgreSQL's websearch_to_tsquery. Quotes keep terms from being read as operators."""
        terms = [f'"{" ".join(term)}"' for term in self.wanted]
        return " ".join([*terms, *(f'-"{" ".join(term)}"' for term in self.unwanted)])

    @property
    def websearch_without_phrases(self) -> str:
        """Return the query with each phrase as single words: it matches whatever `websearch` matches, and more."""
        each = tuple(dict.fromkeys((word,) for term in self.wanted for word in term))
        return WordQuery(each, tuple(term for term in self.unwanted if len(term) == 1)).websearch


def words(text: str) -> list[str]:
    """Return the words of `text`, folded."""
    if text.isascii():
        return [word[:LONGEST] for word in _ASCII_WORD.findall(text.lower())]
    return [word for _, _, word in words_with_offsets(text)]


def words_with_offsets(text: str) -> Iterator[tuple[int, int, str]]:
    """Yield the start offset, the end offset and the folded form of each word of `text`."""
    for match in (_ASCII_WORD if text.isascii() else _WORD).finditer(text):
        if word := fold(match.group()):
            yield match.start(), match.end(), word


def fold(word: str) -> str:
    """Return `word` without case, accents and compatibility forms, cut to LONGEST characters."""
    if word.isascii():
        return word.lower()[:LONGEST]
    plain = unicodedata.normalize("NFD", unicodedata.normalize("NFKC", word).casefold())
    folded: str = _NO_LETTER.sub("", unicodedata.normalize("NFC", _MARKS.sub("", plain)).translate(_SAME))
    return folded[:LONGEST]


def indexable(texts: Iterable[str]) -> str:
    """Return the words of all `texts`, in a form that PostgreSQL can index as one part of a document.

    Words after the first POSITIONS are included once each: a search finds them, but not as part of a phrase.
    """
    found = [word for text in texts for word in words(text)]
    if len(found) > POSITIONS:
        found = found[:POSITIONS] + list(dict.fromkeys(found[POSITIONS:]))
    text = " ".join(found)
    return text if len(text) <= BYTES // 4 else text.encode()[:BYTES].decode(errors="ignore")


def parse_query(query: str) -> WordQuery:
    """Return a person's `query` (words, "a phrase", -excluded) as a WordQuery.

    Never raises. A query that contains no word has no wanted terms.
    """
    wanted: list[tuple[str, ...]] = []
    unwanted: list[tuple[str, ...]] = []
    for match in _TERM.finditer(query[:QUERY_CHARACTERS].translate(_QUOTES)):
        if term := tuple(words(match["phrase"] or match["plain"] or "")):
            (unwanted if match["without"] else wanted).append(term)
    return WordQuery(tuple(dict.fromkeys(wanted[:QUERY_TERMS])), tuple(dict.fromkeys(unwanted[:QUERY_TERMS])))
