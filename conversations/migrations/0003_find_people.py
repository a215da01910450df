"""Index names, phones and user ids by their pieces of three characters, so that a part of one finds the person."""

from __future__ import annotations

import string
import sys
import unicodedata
from collections.abc import Iterator

from django.contrib.postgres.indexes import GinIndex
from django.db import migrations
from django.db.models import Func

SEPARATORS = string.punctuation + string.whitespace + "\u00a0"
# Letters that Unicode does not decompose: the same as in memory/words.py, with their capitals, and the final sigma.
SAME = {"ı": "i", "ø": "o", "ł": "l", "đ": "d", "Ø": "o", "Ł": "l", "Đ": "d", "ς": "σ"}
MARKS = [
    chr(code)
    for first, last in ((0x0300, 0x036F), (0x0591, 0x05C7), (0x0640, 0x0640), (0x064B, 0x065F), (0x0670, 0x0670))
    for code in range(first, last + 1)
    if unicodedata.category(chr(code)) in ("Mn", "Lm")
]


def capitals() -> Iterator[tuple[str, str]]:
    """Yield each capital beyond ASCII that cannot be decomposed, with its small letter."""
    for code in range(0x80, sys.maxunicode + 1):
        letter = chr(code)
        if unicodedata.category(letter) != "Lu" or letter in SAME:
            continue
        small = letter.lower()
        if len(small) == 1 and unicodedata.normalize("NFKD", letter) == letter:
            yield letter, small


def quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def function() -> str:
    """Return the statement that makes the function.

    Each piece begins with eight letters of the client's id, so that a search reads the pieces of one client alone. A
    word is cut with a blank before it: "Ann" has the pieces " a", " an" and "ann". The function names nothing but
    PostgreSQL's own, so that a restored dump can build its index.
    """
    known = {**SAME, **dict(capitals())}
    plain = "".join(known.values())
    ascii_folded = f"translate(lower(t), {quoted(SEPARATORS)}, {quoted(' ' * len(SEPARATORS))})"
    letters = quoted(SEPARATORS + string.ascii_uppercase + "".join(known) + "".join(MARKS))
    folded = quoted(" " * len(SEPARATORS) + string.ascii_lowercase + plain)
    return f"""
        CREATE OR REPLACE FUNCTION pieces_of_names(client uuid, VARIADIC texts text[]) RETURNS text[]
        LANGUAGE sql IMMUTABLE PARALLEL SAFE COST 1000 AS $body$
            SELECT ARRAY(
                SELECT DISTINCT left(client::text, 8) || p
                FROM (SELECT left(array_to_string(texts, ' '), 600) AS t) given
                CROSS JOIN LATERAL (
                    SELECT CASE WHEN octet_length(t) = length(t) THEN {ascii_folded}
                        ELSE replace(translate(normalize(t, NFKD), {letters}, {folded}), 'ß', 'ss')
                    END AS f) folded
                CROSS JOIN LATERAL string_to_table(f, ' ') w
                CROSS JOIN LATERAL (
                    SELECT substr(' ' || w, i, 3) AS p FROM generate_series(1, greatest(length(w) - 1, 1)) i
                    UNION ALL SELECT ' ' || left(w, 1)) pieces
                WHERE w <> '')
        $body$"""


class Migration(migrations.Migration):
    """The function, and the index of contacts by it."""

    dependencies = [("conversations", "0002_constraints_and_policies")]

    operations = [
        migrations.RunSQL(function()),
        migrations.AddIndex(
            "contact",
            GinIndex(Func("client", "name", "phone", "user_id", function="pieces_of_names"), name="contacts_by_pieces"),
        ),
    ]
