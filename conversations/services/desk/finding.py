"""Finding people by a part of their name, phone, user id or e-mail address, labels, and conversations by words said.

The database has an index of pieces of three characters (`pieces_of_names`, migrations 0003 and 0011), which follows
every change of a contact by itself. It proposes; what it proposes is compared with the words once more here.
"""

from __future__ import annotations

import string
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, field
from uuid import UUID

from conversations.models import Label
from conversations.services.core.cluster import rows_of_clients
from conversations.services.history import search

PROPOSED = 300  # contacts of a client that are compared
PEOPLE = 20
CONVERSATIONS = 40
MOST_CLIENTS = 50
MOST_WORDS = 8
LABELS = 5
LEAST = 2  # characters of a query
# Letters that Unicode does not decompose, as in memory/words.py, and the final sigma.
_SAME = str.maketrans("\u0131\u00f8\u0142\u0111\u03c2", "iold\u03c3")
_SEPARATORS = str.maketrans(dict.fromkeys(string.punctuation + string.whitespace + "\u00a0", " "))


@dataclass(frozen=True, slots=True)
class FoundPerson:
    """A contact, and their newest conversation; None if they have none.

    name    as it is shown; others has the channel's own and the e-mail address
    """

    contact_id: UUID
    client_id: UUID
    name: str
    phone: str
    user_id: str
    others: str
    conversation_id: UUID | None


@dataclass(slots=True)
class Found:
    """The result of a search: people, labels (id and name), conversations by words said, and what was not searched."""

    people: list[FoundPerson] = field(default_factory=list)
    labels: list[tuple[int, str]] = field(default_factory=list)
    conversations: list[UUID] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)


def find(client_ids: Sequence[UUID], query: str) -> Found:
    """Return what matches all words of the query, of these clients."""
    found = Found()
    query = query.replace("\x00", "").strip()
    if len(query) < LEAST or not client_ids:
        return found
    found.people = people(client_ids, query)
    found.labels = _labels(client_ids, query)
    said = search.search(client_ids, query)
    found.conversations, found.left_out = said.sessions[:CONVERSATIONS], said.left_out
    return found


def people(client_ids: Sequence[UUID], query: str) -> list[FoundPerson]:
    """Return the contacts whose names, phone, e-mail or user id contain all words of the query, the best first."""
    asked = _words(query.replace("\x00", ""))
    if not asked:
        return []
    proposed = rows_of_clients(_PROPOSED, client_ids[:MOST_CLIENTS], asked)
    ranked = []
    for each in proposed:
        place = _place(asked, fold(" ".join(each[2:6])), each[4])
        if place is not None:
            ranked.append((place, FoundPerson(*each)))
    ranked.sort(key=lambda pair: (pair[0], pair[1].name.casefold(), str(pair[1].contact_id)))
    return [person for _, person in ranked[:PEOPLE]]


def fold(text: str) -> str:
    """Return the text in small letters without accents and with blanks between words, as the index folds it."""
    plain = unicodedata.normalize("NFKD", unicodedata.normalize("NFKC", text).casefold())
    letters = "".join(each for each in plain if unicodedata.category(each) != "Mn" and each != "\u0640")
    return letters.translate(_SAME).translate(_SEPARATORS)


def _words(query: str) -> list[str]:
    """Return the words to look for. A phone number is one word, however it is written."""
    digits = "".join(each for each in query if each.isascii() and each.isdigit())
    if len(digits) >= LEAST and not query.strip("+0123456789 ()-./"):
        return [digits]
    return list(dict.fromkeys(fold(query).split()))[:MOST_WORDS]


def _place(asked: Sequence[str], text: str, user_id: str) -> int | None:
    """Return 0 for a user id itself, 1 where words begin so, 2 where they contain it; None if a word is missing."""
    if any(word not in text for word in asked):
        return None
    if fold(user_id).split() == asked:
        return 0
    return 1 if all(f" {word}" in f" {text}" for word in asked) else 2


# $1 clients, $2 words. Of a word with three or more characters the pieces within it are asked for, of a shorter one the
# piece with which a word begins.
_PROPOSED = f"""
    SELECT DISTINCT ON (p.id) p.id, p.client_id, COALESCE(NULLIF(p.staff_name, ''), p.name), COALESCE(p.phone, ''),
        k.user_id, p.name || ' ' || p.email, s.id
    FROM unnest($1::uuid[]) AS of_client
    CROSS JOIN LATERAL (
        SELECT ARRAY(
            SELECT p FROM unnest($2::text[]) w CROSS JOIN LATERAL unnest(pieces_of_names(of_client, w)) p
            WHERE CASE WHEN length(w) < 3 THEN length(p) = 9 + length(w) ELSE substr(p, 9, 1) <> ' ' END) AS pieces) a
    CROSS JOIN LATERAL (
        SELECT k.id, k.user_id, k.merged_into_id FROM contacts k
        WHERE k.client_id = of_client AND cardinality(a.pieces) > 0
          AND pieces_of_names(k.client_id, k.name, k.phone, k.user_id, k.staff_name, k.email) @> a.pieces
        LIMIT {PROPOSED}) k
    JOIN contacts p ON p.client_id = of_client AND p.id = COALESCE(k.merged_into_id, k.id)
    LEFT JOIN LATERAL (
        SELECT s.id FROM conversations s WHERE s.client_id = of_client AND s.contact_id = p.id
        ORDER BY s.started_at DESC, s.id LIMIT 1) s ON true
    ORDER BY p.id"""


def _labels(client_ids: Sequence[UUID], query: str) -> list[tuple[int, str]]:
    asked = fold(query)
    found = Label.objects.filter(client__in=client_ids).order_by("name").values_list("id", "name")
    return [(pk, name) for pk, name in found if asked in fold(name)][:LABELS]
