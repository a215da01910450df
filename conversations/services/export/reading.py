"""Reading rows a batch at a time, each batch a query of its own that begins after the last row of the one before."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from django.db.models import Model, Q, QuerySet

BATCH = 100


@dataclass(frozen=True, slots=True)
class ExportedMessage:
    """One entry as it should be read. `original` is what was said, where that was corrected; `delivery` the statuses of
    its parts, where it was sent."""

    position: int
    role: str
    text: str
    at: datetime
    by_staff: bool
    original: str | None = None
    delivery: tuple[str, ...] = ()

    @property
    def when(self) -> str:
        """For people."""
        return f"{self.at.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


def in_order(found: QuerySet[Any, Any], *keys: str, batch: int = BATCH) -> Iterator[dict[str, Any]]:
    """The rows of a `values()` query in the order of these columns, which together are unique, and among them; `batch`
    of them at a time."""
    last: Mapping[str, Any] | None = None
    while some := list((found.filter(_after(keys, last)) if last else found).order_by(*keys)[:batch]):
        yield from some
        last = some[-1]
        if len(some) < batch:
            return


def _after(keys: Sequence[str], row: Mapping[str, Any]) -> Q:
    """Behind the row: (a, b) > (row.a, row.b), as a condition that an index on (a, b) serves."""
    first, *others = keys
    behind = Q(**{f"{first}__gt": row[first]})
    return behind | Q(**{first: row[first]}) & _after(others, row) if others else behind


def columns(model: type[Model], *left_out: str) -> list[str]:
    """The names of the table's columns, but for some: a column that is added later is exported as well."""
    return [field.attname for field in model._meta.concrete_fields if field.attname not in left_out]
