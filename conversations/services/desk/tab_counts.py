"""The numbers beside the tabs of the inbox, of many users at once."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from uuid import UUID

from conversations.services.core.cluster import rows_of_clients
from conversations.services.desk import inbox
from conversations.services.desk.inbox import Tab

# By client and user (None: nobody): what they have, what waits for anybody, and what mentions them.
Counted = dict[tuple[UUID, int | None], tuple[int, int, int]]

# By client and holder: open conversations in sight, and of these the ones that wait for anybody.
_COUNTED = f"""
    SELECT s.client_id, h.holder, count(*), count(*) FILTER (WHERE {inbox.WAITS} AND s.taken_over_name = '')
    FROM conversations s LEFT JOIN desk_states d ON d.client_id = s.client_id AND d.conversation_id = s.id
    CROSS JOIN LATERAL (SELECT COALESCE(s.taken_over_by_id,
        CASE WHEN s.taken_over_name = '' THEN d.assignee_id END) AS holder) h
    WHERE s.client_id = ANY ($1::uuid[]) AND {inbox.IN_SIGHT}
      AND (h.holder = ANY ($2::int[]) OR h.holder IS NULL AND {inbox.WAITS})
    GROUP BY s.client_id, h.holder"""
_MENTIONED = """
    SELECT m.client_id, m.user_id, count(DISTINCT m.conversation_id) FROM desk_mentions m
    WHERE m.client_id = ANY ($1::uuid[]) AND m.user_id = ANY ($2::int[]) AND m.read_at IS NULL
    GROUP BY m.client_id, m.user_id"""


def counted(client_ids: Sequence[UUID], user_ids: Sequence[int]) -> Counted:
    """Return the numbers of open conversations and of mentions; two statements for however many users."""
    found: Counted = {}
    for client_id, holder_id, mine, unassigned in rows_of_clients(_COUNTED, client_ids, user_ids, at_once=True):
        found[client_id, holder_id] = (mine, unassigned, 0)
    for client_id, user_id, mentions in rows_of_clients(_MENTIONED, client_ids, user_ids, at_once=True):
        mine, unassigned, _ = found.get((client_id, user_id), (0, 0, 0))
        found[client_id, user_id] = (mine, unassigned, mentions)
    return found


def of_user(found: Counted, user_id: int, client_ids: Collection[UUID]) -> dict[str, int]:
    """Return by tab what the user sees of these clients: conversations that they have, that wait for anybody, and with
    unread notes for them."""
    own = [found.get((client_id, user_id), (0, 0, 0)) for client_id in client_ids]
    anybody = [found.get((client_id, None), (0, 0, 0)) for client_id in client_ids]
    return {
        Tab.MINE.value: sum(mine for mine, _, _ in own),
        Tab.UNASSIGNED.value: sum(unassigned for _, unassigned, _ in anybody),
        Tab.MENTIONS.value: sum(mentions for _, _, mentions in own),
    }
