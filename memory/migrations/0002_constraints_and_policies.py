"""The rules that models cannot state: keys that begin with the client, and how the rows of memories are stored."""

from __future__ import annotations

from django.contrib.postgres.indexes import GinIndex
from django.db import migrations
from django.db.models import Func

# The pairs of words that follow one another in a document, with nothing between them but words that no document holds,
# each as one of 16,384 numbers. So the index finds phrases, and few documents are read in vain.
PAIRS_OF_WORDS = """
    CREATE FUNCTION pairs_of_words(document tsvector) RETURNS int[] LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN (
        SELECT coalesce(array_agg(hashtext(lexeme || ' ' || next || ' ' || gap) & 16383), '{}')
        FROM (
            SELECT lexeme, lead(lexeme) OVER placed AS next, lead(place) OVER placed - place AS gap
            FROM unnest(document) AS word (lexeme, places, weights), unnest(places) AS place
            WINDOW placed AS (ORDER BY place, lexeme)
        ) AS pair
        WHERE gap > 0)
"""


def key(table: str, column: str) -> migrations.RunSQL:
    """Return the operation that makes the client the beginning of the table's primary key."""
    return migrations.RunSQL(
        f"ALTER TABLE {table} DROP CONSTRAINT {table}_pkey,"
        f" ADD CONSTRAINT {table}_pkey PRIMARY KEY (client_id, {column})"
    )


class Migration(migrations.Migration):
    """Keys, storage, and the index of words."""

    dependencies = [("memory", "0001_initial")]

    operations = [
        key("memories", "conversation_id"),
        key("memory_vectors", "vector_id"),
        # A row has its transcript beside it, and its words within it, since each search reads these.
        migrations.RunSQL("ALTER TABLE memories SET (toast_tuple_target = 128)"),
        migrations.RunSQL("ALTER TABLE memories ALTER COLUMN document SET STORAGE MAIN"),
        migrations.RunSQL(PAIRS_OF_WORDS),
        migrations.AddIndex(
            "memory", GinIndex("document", Func("document", function="pairs_of_words"), name="memories_by_words")
        ),
    ]
