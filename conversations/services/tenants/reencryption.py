"""Encrypts what is encrypted in the database anew with the first of CREDENTIALS_KEYS, so that older keys can go."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from allauth.mfa.models import Authenticator
from cryptography.fernet import Fernet, InvalidToken
from django.apps import apps
from django.conf import settings
from django.db.models import Model, TextField, Value
from django.db.models.functions import Cast

from conversations.models.fields import EncryptedJSONField, vault

AT_ONCE = 500  # rows that are read together
FACTORS = ("secret", "seed")  # what allauth encrypts of a second factor


@dataclass(slots=True)
class Reencrypted:
    """The secrets of one kind.

    anew        so many were encrypted anew
    already     so many had the first key
    changed     so many were changed by others meanwhile
    lost        the rows that no key decrypts
    """

    anew: int = 0
    already: int = 0
    changed: int = 0
    lost: list[str] = field(default_factory=list)


def run(
    *, dry_run: bool = False, progress: Callable[[str, int], None] = lambda what, count: None
) -> dict[str, Reencrypted]:
    """Encrypt all secrets anew, and return what became of each kind, by its name. It may be repeated.

    A secret that somebody replaces meanwhile stays as they entered it. One that no key decrypts stays as it is.
    dry_run: change nothing
    progress: called with the kind and the number of secrets that were read
    """
    found: dict[str, Reencrypted] = {}
    for model, name in _fields():
        kind = f"{model._meta.verbose_name_plural}, {name}"
        found[kind] = _of_rows(_tokens(model, name), dry_run, partial(progress, kind))
    found["second factors"] = _of_rows(_factors(), dry_run, partial(progress, "second factors"))
    return found


@dataclass(frozen=True, slots=True)
class _Token:
    """A token of a row. replace: puts another in its place, and returns 0 if the row was changed meanwhile"""

    row: str
    text: str
    replace: Callable[[str], int]


def _of_rows(tokens: Iterator[_Token], dry_run: bool, progress: Callable[[int], None]) -> Reencrypted:
    found, newest = Reencrypted(), Fernet(settings.CREDENTIALS_KEYS[0].encode())
    for number, token in enumerate(tokens, 1):
        if _opens(newest, token.text):
            found.already += 1
        elif not _opens(vault(), token.text):
            found.lost.append(token.row)
        elif dry_run or token.replace(vault().rotate(token.text.encode()).decode()):
            found.anew += 1
        else:
            found.changed += 1
        if number % AT_ONCE == 0:
            progress(number)
    return found


def _opens(keys: Any, token: str) -> bool:
    try:
        keys.decrypt(token.encode())
    except InvalidToken:
        return False
    return True


def _fields() -> Iterator[tuple[type[Model], str]]:
    for model in apps.get_models():
        for each in model._meta.get_fields():
            if isinstance(each, EncryptedJSONField):
                yield model, each.name


def _tokens(model: type[Model], name: str) -> Iterator[_Token]:
    """Yield the tokens of a column, in the order of the primary key."""
    rows: Any = model._default_manager.annotate(token=Cast(name, TextField())).exclude(token="").order_by("pk")
    for pk, client_id, text in _pages(rows.values_list("pk", "client_id", "token")):

        def replace(token: str, pk: Any = pk, client_id: Any = client_id, text: str = text) -> int:
            same = rows.filter(pk=pk, client_id=client_id, token=text)
            return int(same.update(**{name: Value(token, output_field=TextField())}))

        yield _Token(f"{model._meta.label} {pk}", text, replace)


def _factors() -> Iterator[_Token]:
    """Yield the tokens of second factors. Passkeys have none."""
    rows = Authenticator.objects.order_by("pk")
    for pk, data in _pages(rows.values_list("pk", "data")):
        for name in FACTORS:
            if text := data.get(name):

                def replace(token: str, pk: Any = pk, data: Any = data, name: str = name) -> int:
                    same = Authenticator.objects.filter(pk=pk, data=data)
                    return int(same.update(data={**data, name: token}))

                yield _Token(f"{Authenticator._meta.label} {pk}", text, replace)


def _pages(rows: Any) -> Iterator[Any]:
    """Yield all rows, a page after the other; the first value of each is the key by which they are in order."""
    page = list(rows[:AT_ONCE])
    while page:
        yield from page
        page = list(rows.filter(pk__gt=page[-1][0])[:AT_ONCE])
