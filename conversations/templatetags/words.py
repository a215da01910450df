"""Filters of templates for words: `{% load words %}`."""

from __future__ import annotations

from django import template

from conversations import words

register = template.Library()


@register.filter
def shown(stored: str) -> str:
    """Return a stored text, which is English, in the reader's language, as far as it consists of sentences of ours."""
    return words.shown(stored)
