"""Migrations of a database whose tables are placed on the servers of a cluster: each places the tables that it makes.

Citus adds no key between a table that is placed and one that is not, and cannot place a table with a key and a column
that counts by itself. So keys are added at the end of a migration, when its tables are placed.
"""

from __future__ import annotations

import re
from typing import Any

from django.db.backends.postgresql.schema import DatabaseSchemaEditor

_ADDS_KEY = re.compile(r"(?is)^\s*ALTER\s+TABLE\b.*\bADD\s+CONSTRAINT\b.*\bFOREIGN\s+KEY\b")


class SchemaEditor(DatabaseSchemaEditor):
    """Django's, which places new tables in a cluster."""

    def __enter__(self) -> SchemaEditor:
        """Begin the migration."""
        from conversations.services.tenants import servers  # the models are not loaded with this module

        super().__enter__()
        self._places = not self.collect_sql and servers.has_placed()
        if self._places:
            self.sql_create_column_inline_fk: Any = None  # Django adds such a key at the end, too
            servers.prepare_placing()
        return self

    def execute(self, sql: Any, params: Any = ()) -> Any:
        """Run a statement, or keep it for the end of the migration."""
        if self._places and not self._at_end and _ADDS_KEY.match(str(sql)):
            self.deferred_sql.append(sql)
            return
        super().execute(sql, params)

    def __exit__(self, exc_type: Any, exc_value: Any, traceback: Any) -> None:
        """Place the tables that the migration made, and end it."""
        from conversations.services.tenants import servers

        self._at_end = True
        if exc_type is None and self._places:
            servers.place_new()
        super().__exit__(exc_type, exc_value, traceback)

    _places = _at_end = False
