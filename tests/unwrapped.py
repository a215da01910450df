"""Finds sentences of templates that are not marked for translation."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

ATTRIBUTES = ("aria-label", "title", "placeholder", "alt", "data-question")
_TAG = re.compile(r"\{%.*?%\}|\{\{.*?\}\}|\{#.*?#\}", re.DOTALL)
_SILENT = re.compile(
    r"\{% comment.*?endcomment %\}|\{% blocktrans.*?endblocktrans(?:late)? %\}|<svg.*?</svg>|<script\b.*?</script>"
    r"|<kbd>.*?</kbd>|<code\b[^>]*>.*?</code>|<!--.*?-->"
    r"|<(span|i)\b[^<]*material-symbols[^<]*</\1>",
    re.DOTALL,
)
_ELEMENT = re.compile(r"<[a-z!/](?:[^<>\"']|\"[^\"]*\"|'[^']*')*>", re.IGNORECASE)
_ATTRIBUTE = re.compile(rf"(?<=\s)({'|'.join(ATTRIBUTES)})=\"([^\"]*)\"")
_WORD = re.compile(r"[^\W\d_]{2,}")


@dataclass(frozen=True)
class Sentence:
    """Raw text from `start` to `end` of the source. is_plain: nothing of the template's language stands beside it."""

    start: int
    end: int
    text: str
    is_plain: bool
    is_attribute: bool = False


def sentences(source: str) -> Iterator[Sentence]:
    """Return the raw sentences of a template: what stands between elements, and in attributes that people read."""
    masked = source
    for pattern in (_SILENT, _TAG):
        masked = pattern.sub(lambda found: _mask(found[0]), masked)
    at = 0
    for element in _ELEMENT.finditer(masked):
        yield from _pieces(masked, at, element.start())
        at = element.end()
        for attribute in _ATTRIBUTE.finditer(masked, element.start(), element.end()):
            yield from _pieces(masked, attribute.start(2), attribute.end(2), is_attribute=True)
    yield from _pieces(masked, at, len(masked))


def _mask(text: str) -> str:
    """Return as many characters that are no words: one for what is silent, one for tags, one for variables."""
    kind = {"{%": "\ue001", "{{": "\ue002"}.get(text[:2], "\ue000")
    if text.startswith(("{% blocktrans", "{% comment", "{#")):
        kind = "\ue000"
    return kind * len(text)


def _pieces(masked: str, start: int, end: int, *, is_attribute: bool = False) -> Iterator[Sentence]:
    """Return the texts between tags of the template."""
    whole = masked[start:end]
    texts = [each for each in re.finditer("[^\ue000\ue001]+", whole) if _WORD.search(each[0].replace("\ue002", ""))]
    for each in texts:
        text = each[0].strip()
        offset = start + each.start() + each[0].index(text)
        is_plain = "\ue002" not in text and len(texts) == 1 and "\ue002" not in whole
        yield Sentence(offset, offset + len(text), text, is_plain, is_attribute)
