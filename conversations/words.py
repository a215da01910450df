"""Words on screen that are written down before anybody reads them: labels, titles, help texts."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from django.utils.translation import gettext_lazy


def lazy(text: str) -> str:
    """Return the text, which is translated each time that it is shown.

    What is returned behaves as a str. Import it as `_`: `make messages` collects what stands in `_("…")`.
    """
    found: Any = gettext_lazy(text)
    return found  # type: ignore[no-any-return]


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
