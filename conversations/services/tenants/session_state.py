"""One value for all rows that decide whether a session is signed in, and which conversations its user may see.

While it is the same as when a view decided, the view would decide the same again, but for limits of time.
"""

from __future__ import annotations

from collections.abc import Mapping

from conversations.services.core.sql import rows

# The session, the user, their choices and second factors, their roles, and what their clients ask of them.
_STATES = """
    SELECT k.session_key, sha256(convert_to(ROW(
        s.session_data, u.password, u.is_active, u.is_staff, u.is_superuser,
        (SELECT ROW(p.language, p.time_zone)::text FROM user_preferences p WHERE p.user_id = u.id),
        (SELECT string_agg(ROW(a.id, a.type, a.created_at)::text, ',' ORDER BY a.id)
            FROM mfa_authenticator a WHERE a.user_id = u.id),
        (SELECT string_agg(ROW(c.id, c.is_active, c.requires_second_factor, m.role, m.sees_receipts)::text, ','
            ORDER BY c.id)
            FROM clients c LEFT JOIN memberships m ON m.client_id = c.id AND m.user_id = u.id
            WHERE u.is_superuser OR m.user_id IS NOT NULL)
    )::text, 'UTF8'))
    FROM unnest($1::text[], $2::int[]) k(session_key, user_id)
    JOIN django_session s ON s.session_key = k.session_key AND s.expire_date > now()
    JOIN auth_user u ON u.id = k.user_id"""


def states_of(users: Mapping[str, int]) -> dict[str, bytes]:
    """Return the state of each session of these users, by the session's key. One that has ended has none."""
    return dict(rows(_STATES, list(users), list(users.values())))
