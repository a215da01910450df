"""Fields that the models share."""

from __future__ import annotations

import json
from functools import lru_cache
from typing import Any

from cryptography.fernet import Fernet, InvalidToken, MultiFernet
from django.conf import settings
from django.db import models


class EncryptedJSONField(models.TextField):  # type: ignore[type-arg]
    """A small JSON object that is a Fernet token at rest and an object in Python.

    `CREDENTIALS_KEYS` has the keys: the first encrypts, all decrypt. A token that no key decrypts reads as an empty
    object, so that a lost key breaks sending (visibly) and not every page that shows the row.
    """

    def from_db_value(self, value: str | None, *_: Any) -> dict[str, str]:
        """Return the decrypted object."""
        return _decrypt(value) if value else {}

    def to_python(self, value: Any) -> dict[str, str]:
        """Return the object, which may be given as JSON."""
        return value if isinstance(value, dict) else json.loads(value or "{}")

    def get_prep_value(self, value: Any) -> str:
        """Return the object as an encrypted token, '' for an empty one: rows without secrets need no decryption."""
        given = self.to_python(value)
        if not given:
            return ""
        plain = json.dumps(given, sort_keys=True).encode()
        return vault().encrypt(plain).decode()


def _decrypt(token: str) -> dict[str, str]:
    try:
        plain = vault().decrypt(token.encode())
    except InvalidToken:
        return {}
    opened: dict[str, str] = json.loads(plain)
    return opened


def vault() -> MultiFernet:
    """Return what encrypts with the first of CREDENTIALS_KEYS and decrypts with any."""
    return _vault(tuple(settings.CREDENTIALS_KEYS))


@lru_cache(maxsize=4)
def _vault(keys: tuple[str, ...]) -> MultiFernet:
    return MultiFernet([Fernet(key.encode()) for key in keys])
