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
    word is cut with a blank before it: "Ann" has the pieces " a", " an" and "ann". Pieces that reach into the next word
    are no harm, and to leave them out would cost more than they do. The text is cut by replacing: three times, from its
    first, second and third letter. Rows made of it instead cost each new contact five times as much. The function names
    nothing but PostgreSQL's own, so that a restored dump can build its index.
    """
    usual = f"{quoted(SEPARATORS + string.ascii_uppercase + ''.join(MARKS))}"
    folded = f"{quoted(' ' * len(SEPARATORS) + string.ascii_lowercase)}"
    rare = {**SAME, **dict(capitals())}
    return f"""
        CREATE OR REPLACE FUNCTION pieces_of_names(client uuid, VARIADIC texts text[]) RETURNS text[]
        LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE COST 1000 AS $body$
        DECLARE
            of_client text := left(client::text, 8);
            t text := left(array_to_string(texts, ' '), 600);
        BEGIN
            IF octet_length(t) = length(t) THEN
                t := translate(lower(t), {quoted(SEPARATORS)}, {quoted(" " * len(SEPARATORS))});
            ELSE
                t := translate(normalize(t, NFKD), {usual}, {folded});
                IF octet_length(t) <> length(t) THEN
                    t := replace(translate(t, {quoted("".join(rare))}, {quoted("".join(rare.values()))}), 'ß', 'ss');
                END IF;
            END IF;
            t := rtrim(' ' || t);
            RETURN string_to_array(rtrim(
                regexp_replace(t, ' +([^ ])[^ ]*', of_client || ' \\1|', 'g')
                || regexp_replace(left(t, length(t) / 3 * 3), '(...)', of_client || '\\1|', 'g')
                || regexp_replace(substr(left(t, (length(t) - 1) / 3 * 3 + 1), 2), '(...)', of_client || '\\1|', 'g')
                || regexp_replace(substr(left(t, (length(t) - 2) / 3 * 3 + 2), 3), '(...)', of_client || '\\1|', 'g'),
                '|'), '|');
        END
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
