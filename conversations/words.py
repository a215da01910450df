"""Words on screen: those that are written down before anybody reads them, and those that others store or raise."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from django.utils.formats import number_format
from django.utils.translation import gettext, gettext_lazy

from channels_out.errors import SentenceError

# What ends a sentence, and what stands before a value that is stored with it.
_PARTS = re.compile(r"(?<=[.:]) | (?=\()|(?<=a call of the tool) ")
_PLACEHOLDER = re.compile(r"%\\\((\w+)\\\)s")  # in a pattern
_with_values: dict[str, re.Pattern[str]] = {}  # by the sentence, which has placeholders


def lazy(text: str) -> str:
    """Return the text, which is translated each time that it is shown.

    What is returned behaves as a str. Import it as `_`: `make messages` collects what stands in `_("…")`.
    """
    found: Any = gettext_lazy(text)
    return found  # type: ignore[no-any-return]


def with_values(sentence: str) -> str:
    """Return the sentence, which is stored with values in place of its placeholders `%(name)s`.

    Call it while the module is imported, so that `shown` knows the sentence again in every process. A value contains no
    end of a sentence.
    """
    _with_values[sentence] = re.compile(_PLACEHOLDER.sub(r"(?P<\1>(?:(?!\\. ).)+)", re.escape(sentence)))
    return sentence


def shown(stored: str) -> str:
    """Return a text that is stored, and so is English, in the reader's language.

    It consists of sentences of ours, which are marked with `gettext_noop`, or `with_values`, where they are written.
    All else stays.
    """
    parts, said = _PARTS.split(stored), []
    while parts:
        texts = [" ".join(parts[:number]) for number in range(len(parts), 0, -1)]
        text = next((each for each in texts if each and _translated(each) != each), texts[-1])
        said.append(_translated(text) if text else "")
        del parts[: len(_PARTS.split(text))]
    return " ".join(said)


def _translated(text: str) -> str:
    if (said := gettext(text)) != text:
        return said
    for sentence, pattern in _with_values.items():
        if found := pattern.fullmatch(text):
            return gettext(sentence) % found.groupdict()
    return text


def sentence_of(error: SentenceError) -> str:
    """Return the error's sentence in the reader's language."""
    words = gettext(error.words)
    return words % error.values if error.values else words


def whole(number: int) -> str:
    """Return the whole number with the separators of the reader's language, such as 10,000."""
    return number_format(number, force_grouping=True)


def translate_fields(models: Iterable[Any]) -> None:
    """Translate what the models, their fields and their choices are called, and the help texts, where they are shown.

    `make messages` collects them from the models, so that no model has to mark its own.
    """
    for model in models:
        options = model._meta
        options.verbose_name = lazy(str(options.verbose_name))
        options.verbose_name_plural = lazy(str(options.verbose_name_plural))
        for field in (each for each in options.get_fields() if hasattr(each, "help_text")):
            field.verbose_name = lazy(str(field.verbose_name))
            field.help_text = lazy(str(field.help_text)) if field.help_text else ""
            if field.choices:
                field.choices = [(value, lazy(str(label))) for value, label in field.choices]
