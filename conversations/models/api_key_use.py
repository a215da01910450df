"""When API keys were last used, in a database of several servers."""

from __future__ import annotations

from django.db import models

from conversations.models.of_client import OfClient


class ApiKeyUse(OfClient):
    """The last use of a key, in a cluster. There the keys are on every server, and a write to them needs all servers.

    The sweep takes the times over into the keys.
    """

    key_id = models.BigIntegerField(primary_key=True)
    last_used_at = models.DateTimeField()

    class Meta:
        db_table = "api_key_uses"

    def __str__(self) -> str:
        return f"{self.key_id} {self.last_used_at}"
