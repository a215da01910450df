"""Texts: in the form that PostgreSQL can store, on one line, and measured in tokens.

Tokens are estimated. A real tokenizer downloads its tables at run time, and every model has its own.
"""

from __future__ import annotations

import math
import re

SENTENCE_ENDS = ".!?。！？।؟…"  # noqa: RUF001 - of other scripts


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
    end = max(text.rfind(mark) for mark in SENTENCE_ENDS)
    return text[: end + 1] if end > len(text) // 2 else f"{text}…"


# --- tokens -----------------------------------------------------------------------------------------------------------
# Characters per token, by script. Measured vocabularies differ by about a third either way; these numbers overestimate
# tokens rather than underestimate them. Prose with few digits and signs has nearly 4 characters a token.
LATIN = 4.0  # a-z, A-Z and blanks
DENSE = 2.0  # digits and ASCII punctuation, which rarely share a token with their neighbours
ALPHABETIC = 2.0  # accented Latin, Greek, Cyrillic, Hebrew, Arabic, the Indic scripts, Thai …
IDEOGRAPHIC = 1.5  # Chinese, Japanese, Korean, and the full-width forms
RARE = 0.5  # emoji, symbols and everything beyond: several tokens a character

_DENSE = b"0123456789!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~"
_IDEOGRAPHIC = re.compile("[\u1100-\u11ff\u2e80-\ua4cf\ua960-\ua97f\uac00-\ud7ff\uf900-\ufaff\uff00-\uffef]+")
_RARE = re.compile("[\u2190-\u2e7f\ud800-\uf8ff\ufe00-\ufe0f\U00010000-\U0010ffff]+")


def estimate_tokens(text: str) -> int:
    """Return the estimated number of tokens in `text`, rounded up; 0 for ''.

    A text never has more tokens than its pieces have together, and never fewer than any of them.
    """
    plain = text.encode("ascii", "ignore")
    dense = len(plain) - len(plain.translate(None, _DENSE))
    tokens = (len(plain) - dense) / LATIN + dense / DENSE
    if other := len(text) - len(plain):
        ideographic = sum(map(len, _IDEOGRAPHIC.findall(text)))
        rare = sum(map(len, _RARE.findall(text)))
        tokens += ideographic / IDEOGRAPHIC + rare / RARE + (other - ideographic - rare) / ALPHABETIC
    return math.ceil(tokens - 1e-6)  # thirds do not add up exactly


def shorten(text: str, tokens: int) -> str:
    """Return `text` in at most `tokens` tokens.

    A text that is too long keeps its beginning and its end, around a mark that says how much is missing; the result is
    '' if there is no room for that.
    """
    if estimate_tokens(text) <= tokens:
        return text
    # No script has more characters a token than Latin: no more than that can fit.
    fits, too_many = -1, min(len(text), int(tokens * LATIN) + 1)
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
