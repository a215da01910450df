"""Rows that belong to one client, as Django writes and reads them again."""

from __future__ import annotations

from typing import Any

from django.db import models


class NamesClient(models.Model):
    """A model with `client_id`, which every UPDATE of one of its rows names beside the key."""

    class Meta:
        abstract = True

    def _do_update(self, base_qs: Any, *values: Any) -> Any:
        return super()._do_update(base_qs.filter(client_id=self.client_id), *values)  # type: ignore[attr-defined]

    def refresh_from_db(self, using: str | None = None, fields: Any = None, from_queryset: Any = None) -> None:
        """Read the row again, as Django does."""
        found: Any = type(self)._base_manager.db_manager(using).all() if from_queryset is None else from_queryset
        ours: Any = self  # its field is given by the model
        super().refresh_from_db(using, fields, found.filter(client_id=ours.client_id))
