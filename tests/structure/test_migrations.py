"""A migration states a table once: what belongs to it stands where it is made.

Django asks for the state after each operation, for which it builds anew every model that the changed one relates to:
nearly all of them. `makemigrations` writes the constraints and indexes of a new table as operations of their own. That
way a new database took nearly three times as long.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

import pytest
from django.db import migrations
from django.db.migrations.operations.base import Operation

ROOT = Path(__file__).parents[2]
MIGRATIONS = sorted(path for app in ("conversations", "memory") for path in (ROOT / app / "migrations").glob("0*.py"))


def _migration(path: Path) -> type[migrations.Migration]:
    migration: type[migrations.Migration] = import_module(f"{path.parts[-3]}.migrations.{path.stem}").Migration
    return migration


def apart(operations: list[Operation]) -> list[str]:
    """Return what is added to a model that the same operations make, and could stand in its CreateModel.

    A field that relates to a model that is made later cannot, and neither can what follows such a field.
    """
    made: dict[str, set[str]] = {}  # each new model, and those that were there when it was made
    waiting: set[str] = set()
    found = []
    for each in operations:
        if isinstance(each, migrations.CreateModel):
            made[each.name_lower] = set(made)
            continue
        model = getattr(each, "model_name_lower", getattr(each, "model_name", ""))
        if model not in made or model in waiting:
            continue
        later = set(made) - made[model] - {model}
        if isinstance(each, migrations.AddField) and _relates_to(each) in later:
            waiting.add(model)
        elif isinstance(each, migrations.AddField | migrations.AddIndex | migrations.AddConstraint):
            found.append(each.describe())
    return found


def _relates_to(operation: migrations.AddField) -> str:
    related = getattr(operation.field, "remote_field", None)
    return str(related.model).rpartition(".")[2].lower() if related else ""


@pytest.mark.parametrize("path", MIGRATIONS, ids=lambda path: f"{path.parts[-3]}.{path.stem}")
def test_what_belongs_to_a_new_table_stands_where_it_is_made(path: Path) -> None:
    assert apart(_migration(path).operations) == []


def test_what_stands_apart_is_found() -> None:
    from django.db import models

    shelf = migrations.CreateModel("Shelf", [("id", models.BigAutoField(primary_key=True))])
    book = migrations.CreateModel(
        "Book", [("id", models.BigAutoField(primary_key=True)), ("title", models.TextField())]
    )
    first = migrations.AddField("shelf", "first", models.ForeignKey("library.book", models.CASCADE))
    index = migrations.AddIndex("book", models.Index(fields=["title"], name="books_by_title"))
    after = migrations.AddIndex("shelf", models.Index(fields=["first"], name="shelves_by_first"))
    assert apart([shelf, book, first, after]) == []
    assert apart([shelf, book, index]) == ["Create index books_by_title on field(s) title of model book"]
    assert apart([index]) == []
