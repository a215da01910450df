"""Words in a row are found by the index: beside the words of a document it holds each pair of words that follow upon each
other, as one of 16,384 numbers. That few documents are read in vain is enough; whether the words really stand there,
the document itself says.

A pair is two words with nothing between them but small words, which no document holds, and how many of these there are.
It can be repeated when it is cut off: an index that is built while others write may be left invalid.
"""

from django.contrib.postgres.indexes import GinIndex
from django.contrib.postgres.operations import AddIndexConcurrently, RemoveIndexConcurrently
from django.db import migrations
from django.db.models import Func

PAIRS_OF_WORDS = """
    CREATE OR REPLACE FUNCTION pairs_of_words(document tsvector) RETURNS int[] LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN (
        SELECT coalesce(array_agg(hashtext(lexeme || ' ' || next || ' ' || gap) & 16383), '{}')
        FROM (
            SELECT lexeme, lead(lexeme) OVER placed AS next, lead(place) OVER placed - place AS gap
            FROM unnest(document) AS word (lexeme, places, weights), unnest(places) AS place
            WINDOW placed AS (ORDER BY place, lexeme)
        ) AS pair
        WHERE gap > 0)
"""


class Migration(migrations.Migration):
    atomic = False
    dependencies = [("memory", "0004_words_in_rows")]

    operations = [
        migrations.RunSQL(PAIRS_OF_WORDS, "DROP FUNCTION IF EXISTS pairs_of_words"),
        migrations.RunSQL("DROP INDEX CONCURRENTLY IF EXISTS memories_by_words", migrations.RunSQL.noop),
        AddIndexConcurrently(
            "memory",
            GinIndex("document", Func("document", function="pairs_of_words"), name="memories_by_words"),
        ),
        RemoveIndexConcurrently("memory", "memories_by_word"),
    ]
