"""Statements as an event loop's batches run them for many at once, in the thread and transaction of a test."""

from __future__ import annotations

from typing import Any
from uuid import UUID, uuid4

import orjson
from psycopg.types.json import Json

from conversations.services.core.asking import Asked, gathered
from conversations.services.core.sql import rows
from conversations.services.core.statements import Many, Row, ThisThread


class AmongOthers(ThisThread):
    """Runs the form for many: for the same of an unknown client, and for what is asked."""

    async def row(self, statement: str, *values: Any, many: Many | None = None) -> Row | None:
        """Return the row of what is asked."""
        if many is None:
            return await super().row(statement, *values)
        nobody: Any = None
        unknown = [*values]
        [client] = [place for place in many.about if isinstance(values[place], UUID)]
        unknown[client] = uuid4()
        asked = [Asked(statement, each, nobody, writes=True, many=many) for each in (unknown, values)]
        [together], _ = gathered(asked)
        together.take(rows(many.statement, Json(orjson.loads(together.values() or b""))))
        assert asked[0].rows == []
        return next(iter(asked[1].rows or []), None)


AMONG_OTHERS = AmongOthers()
