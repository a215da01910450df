"""Collects what is said on screen into the catalogues of `locale/`: `make messages`.

Collected are our own templates, modules and scripts, and what unfold says and Django does not translate. Translations
stay, sentences that are gone are dropped, and new ones are empty until somebody translates them.
"""

from __future__ import annotations

import ast
import os
import re
import sys
from collections.abc import Iterator
from importlib import import_module
from io import BytesIO
from pathlib import Path
from typing import IO, Any

import django
import unfold
from babel.messages.catalog import Catalog
from babel.messages.extract import DEFAULT_KEYWORDS, extract
from babel.messages.mofile import read_mo
from babel.messages.pofile import read_po, write_po
from django.contrib import admin
from django.db.models import Field
from django.template.base import Lexer, TokenType
from django.utils import translation
from django.utils.text import smart_split
from django.utils.translation.template import block_re, constant_re, context_re, endblock_re, plural_re

from convo_project import languages

PROJECT = languages.FOLDER.parent
UNFOLD = Path(unfold.__file__).parent
ROOT = "convo_project.urls"
MODULES = ("conversations", "channels_out", "memory")
TEMPLATES = ("templates",)
SCRIPTS = ("conversations/static",)
KEYWORDS: dict[str, Any] = {
    **DEFAULT_KEYWORDS,
    "gettext_lazy": None,
    "gettext_noop": None,
    "ngettext_lazy": (1, 2),
    "pgettext_lazy": ((1, "c"), 2),
    "npgettext_lazy": ((1, "c"), 2, 3),
    "with_values": None,  # conversations/words.py
    # Errors and notices of channels_out, which knows no translations: see conversations/words.py.
    "InvalidChoicesError": None,
    "InvalidTemplateError": None,
    "AccountNotice": None,
    "_noticed": None,
}
HEADER = """msgid ""
msgstr ""
"Language: {language}\\n"
"Plural-Forms: {plural}\\n"
"MIME-Version: 1.0\\n"
"Content-Type: text/plain; charset=utf-8\\n"
"Content-Transfer-Encoding: 8bit\\n"

"""
Found = Iterator[tuple[Any, str, Any, list[str]]]


def collected(domain: str, project: Path = PROJECT) -> Catalog:
    """Return a catalogue without translations: `django` (modules and templates) or `djangojs` (scripts)."""
    catalogue = Catalog(charset="utf-8")
    for message, context in _said(domain, project):
        catalogue.add(message, context=context)
    return catalogue


def update(folder: Path = languages.FOLDER) -> list[str]:
    """Bring the catalogues up to date, and return a sentence for each that still lacks something."""
    return [sentence for domain in ("django", "djangojs") for sentence in _update(domain, folder)]


def _update(domain: str, folder: Path) -> Iterator[str]:
    template = collected(domain)
    for path in sorted(folder.glob("*/LC_MESSAGES")):
        catalogue = read(path / f"{domain}.po", path.parent.name)
        catalogue.update(template, no_fuzzy_matching=True)
        write(path / f"{domain}.po", catalogue)
        if lacking := sum(1 for each in catalogue if each.id and not is_translated(each)):
            yield f"{path.parent.name}/{domain}: {lacking} of {len(catalogue)} are not translated."


def read(path: Path, locale: str = "") -> Catalog:
    """Return the catalogue at the path; an empty one of the locale if there is none."""
    if not path.exists():
        return Catalog(locale=locale, project="Convo", charset="utf-8", fuzzy=False)
    with path.open("rb") as file:
        return read_po(file, abort_invalid=True)


def write(path: Path, catalogue: Catalog) -> None:
    """Write the catalogue sorted and without dates and line numbers, which would differ in every branch."""
    text = BytesIO()
    write_po(text, catalogue, no_location=True, sort_output=True, ignore_obsolete=True, omit_header=True, width=0)
    header = HEADER.format(language=catalogue.locale_identifier or "", plural=catalogue.plural_forms)
    path.write_bytes(header.encode() + text.getvalue().lstrip(b"\n"))


def is_translated(message: Any) -> bool:
    """Return whether the message is translated, in all its plural forms, and not marked as uncertain."""
    strings = message.string if isinstance(message.string, tuple | list) else [message.string]
    return all(strings) and bool(strings) and not message.fuzzy


# --- what is said -----------------------------------------------------------------------------------------------------
def _said(domain: str, project: Path) -> Iterator[tuple[Any, str | None]]:
    if domain == "djangojs":
        for path in _files(project, SCRIPTS, "js"):
            yield from _in(path, "javascript", {"parse_template_string": "yes"})
        return
    for path in _files(project, MODULES, "py"):
        yield from _in(path, "python")
    for path in _files(project, TEMPLATES, "html"):
        yield from _in(path, extract_template)
    yield from ((word, None) for word in sorted(_of_models()))
    known = _of_django()
    for path in _files(UNFOLD, (".",), "py"):
        yield from (each for each in _in(path, "python") if key_of(each[0]) not in known)
    for path in _files(UNFOLD, ("templates",), "html"):
        yield from (each for each in _in(path, extract_template) if key_of(each[0]) not in known)


def _files(root: Path, folders: tuple[str, ...], suffix: str) -> Iterator[Path]:
    for folder in folders:
        yield from sorted((root / folder).rglob(f"*.{suffix}"))


def _in(path: Path, method: Any, options: dict[str, str] | None = None) -> Iterator[tuple[Any, str | None]]:
    content = path.read_bytes()
    for _, message, _, context in extract(method, BytesIO(content), KEYWORDS, (), options or {}):
        yield message, context


def key_of(message: Any) -> str:
    """Return the message's English sentence; of one with a plural, the singular."""
    return message if isinstance(message, str) else str(message[0])


def _of_models() -> set[str]:
    """Return what the pages of the admin call our tables, their columns, and the values of these."""
    found: set[str] = set()
    with translation.override("en"):
        for model in (each for each in admin.site._registry if each._meta.app_label == "conversations"):
            options = model._meta
            found |= {str(options.verbose_name), str(options.verbose_name_plural)}
            for field in (each for each in options.get_fields() if isinstance(each, Field)):
                found |= {str(field.verbose_name), str(field.help_text)}
                found |= {str(label) for _, label in field.flatchoices}
    return {each for each in found if re.search(r"[^\W\d_]{2}", each)}


def _of_django() -> set[str]:
    """Return what Django translates into each of our languages."""
    root = Path(django.__file__).parent
    known: set[str] | None = None
    for code, _ in languages.found()[1:]:
        names = {code.replace("-", "_").lower(), code.partition("-")[0]}
        paths = [path for path in root.rglob("locale/*/LC_MESSAGES/django.mo") if path.parts[-3].lower() in names]
        mine: set[str] = set()
        for path in paths:
            with path.open("rb") as file:
                mine |= {key_of(each.id) for each in read_mo(file) if each.id}
        known = mine if known is None else known & mine
    return known or set()


# --- templates --------------------------------------------------------------------------------------------------------
def extract_template(fileobj: IO[bytes], keywords: Any, comment_tags: Any, options: Any) -> Found:
    """Return what a template marks for translation, as Babel's extractors do."""
    tokens = iter(Lexer(fileobj.read().decode()).tokenize())
    for token in tokens:
        if token.token_type == TokenType.BLOCK and block_re.match(token.contents):
            yield from _block(token, tokens)
        elif token.token_type == TokenType.BLOCK and re.match(r"trans(?:late)?\s", token.contents):
            yield from _inline(token)
        if token.token_type in (TokenType.BLOCK, TokenType.VAR):
            for each in constant_re.findall(token.contents):
                yield token.lineno, "gettext", _literal(each), []


def _inline(token: Any) -> Found:
    """Return the sentence of `{% translate "…" context "…" %}`."""
    bits = list(smart_split(token.contents))
    if bits[1][0] not in "\"'":
        return  # a variable
    message = _literal(bits[1].partition("|")[0])
    if "context" in bits:
        yield token.lineno, "pgettext", (_literal(bits[bits.index("context") + 1]), message), []
    else:
        yield token.lineno, "gettext", message, []


def _block(begin: Any, tokens: Iterator[Any]) -> Found:
    """Return the sentences of `{% blocktranslate %}`, with its placeholders as Django looks them up."""
    parts: list[list[str]] = [[]]
    for token in tokens:
        if token.token_type == TokenType.BLOCK and endblock_re.match(token.contents):
            break
        if token.token_type == TokenType.BLOCK and plural_re.match(token.contents):
            parts.append([])
        elif token.token_type == TokenType.VAR:
            parts[-1].append(f"%({token.contents.partition('|')[0]})s")
        elif token.token_type == TokenType.TEXT:
            parts[-1].append(token.contents.replace("%", "%%"))
        else:
            raise ValueError(f"line {token.lineno}: a tag stands in blocktranslate: {token.contents}")
    is_trimmed = " trimmed" in begin.contents
    sentences = ["".join(part) for part in parts]
    if is_trimmed:
        sentences = [re.sub(r"\s*\n\s*", " ", each.strip()) for each in sentences]
    function, arguments = "gettext" if len(sentences) == 1 else "ngettext", sentences
    if context := context_re.match(begin.contents):
        function, arguments = f"{'n' * (len(sentences) > 1)}pgettext", [_literal(context[1]), *sentences]
    yield begin.lineno, function, arguments[0] if len(arguments) == 1 else tuple(arguments), []


def _literal(quoted: str) -> str:
    text: str = ast.literal_eval(quoted)
    return text


if __name__ == "__main__":
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "convo_project.settings")
    django.setup()
    import_module(ROOT)  # registers the pages of the admin
    sys.stdout.write("\n".join(update() or ["Everything is translated."]) + "\n")
