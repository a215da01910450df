"""Reading rows in batches: each batch is a query of its own that begins after the last row of the one before."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from django.db.models import Model, Q, QuerySet

from conversations.models import Attachment
from conversations.services.media.shown import in_words

BATCH = 100


@dataclass(frozen=True, slots=True)
class ExportedMessage:
    """A message as it should be read.

    original    the original text, if it was corrected; None if not
    delivery    the delivery statuses of its parts, if it was sent
    beside      phrases: what it quotes or is about, and what the person did with it or after it
    files       its pictures, recordings and documents
    """

    position: int
    role: str
    text: str
    at: datetime
    by_staff: bool
    original: str | None = None
    delivery: tuple[str, ...] = ()
    beside: tuple[str, ...] = ()
    files: tuple[Attachment, ...] = ()

    @property
    def files_in_words(self) -> list[str]:
        """Return its files as phrases for people to read."""
        return [in_words(row) for row in self.files]

    @property
    def when(self) -> str:
        """Return the time for people to read, in UTC."""
        return f"{self.at.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


def read_in_batches(found: QuerySet[Any, Any], *keys: str, batch: int = BATCH) -> Iterator[dict[str, Any]]:
    """Yield the rows of a `values()` query in the order of the columns `keys`, in queries of `batch` rows.

    keys: columns that the query selects and that are unique together
    """
    last: Mapping[str, Any] | None = None
    while rows := list((found.filter(_after(keys, last)) if last else found).order_by(*keys)[:batch]):
        yield from rows
        last = rows[-1]
        if len(rows) < batch:
            return


def _after(keys: Sequence[str], row: Mapping[str, Any]) -> Q:
    """Return the condition (a, b) > (row.a, row.b) in a form that an index on (a, b) serves."""
    first, *others = keys
    after = Q(**{f"{first}__gt": row[first]})
    return after | Q(**{first: row[first]}) & _after(others, row) if others else after


def column_names(model: type[Model], *left_out: str) -> list[str]:
    """Return the names of the table's columns except `left_out`, so that a column that is added later is exported."""
    return [field.attname for field in model._meta.concrete_fields if field.attname not in left_out]
