"""The deadlines of everything that happens by itself, each rule once, in SQL: for the jobs that apply it, and for the
forecast that announces it.

`s` is the conversation, `c` its client, `p` its contact; $1 is now.
"""

from __future__ import annotations

from dataclasses import dataclass

from django.conf import settings

from conversations.models import RetentionRule as R

# --- ageing -----------------------------------------------------------------------------------------------------------
# A takeover suspends ageing, which begins anew with the hand-back. Conversations on the web do not age at all.
AGE_SINCE = "GREATEST(s.last_message_at, s.handed_back_at)"
STALE_AT = f"{AGE_SINCE} + c.stale_after"
EXPIRES_AT = f"GREATEST({AGE_SINCE} + c.expire_after, s.extended_until)"
AGES = "s.taken_over_at IS NULL AND s.channel <> 'web'"

HANDED_BACK_AT = "s.taken_over_until"
OPEN = "FROM conversations s JOIN clients c ON c.id = s.client_id WHERE s.status IN ('active', 'stale')"
# What the sweep does to an open conversation, and when. The conditions exclude each other.
SWEPT = {
    "handed_back": f"s.taken_over_at IS NOT NULL AND {HANDED_BACK_AT} <= $1",
    "expired": f"{AGES} AND {EXPIRES_AT} <= $1",
    "stale": f"{AGES} AND s.status = 'active' AND {STALE_AT} <= $1 AND {EXPIRES_AT} > $1",
}


def sweep_due(what: str) -> str:
    """Return the SQL "FROM … WHERE …" of the open conversations to which the sweep does this at $1.

    what: a key of SWEPT
    """
    return f"{OPEN} AND {SWEPT[what]}"


# The same for all three, without reading every open conversation: of the active ones, and of each client's stale ones,
# those that began long enough ago (none is silent for longer than it exists); and those whose takeover is over.
SWEEP_DUE = f"""
    SELECT s.client_id, s.id, CASE WHEN {SWEPT["expired"]} THEN 'expired' WHEN {SWEPT["stale"]} THEN 'stale' END AS due
    FROM (SELECT max($1 - stale_after) AS silent_from FROM clients) longest, LATERAL (
        SELECT * FROM conversations
        WHERE status = 'active' AND channel <> 'web' AND started_at <= silent_from AND last_message_at <= silent_from
        OFFSET 0) s
    JOIN clients c ON c.id = s.client_id
    UNION ALL
    SELECT s.client_id, s.id, 'expired'
    FROM (SELECT *, $1 - expire_after AS silent_from FROM clients OFFSET 0) c, LATERAL (
        SELECT * FROM conversations
        WHERE client_id = c.id AND status = 'stale' AND started_at <= silent_from AND last_message_at <= silent_from
        OFFSET 0) s
    WHERE {SWEPT["expired"]}
    UNION ALL
    SELECT s.client_id, s.id, 'handed_back' {sweep_due("handed_back")}"""

# The same of client $2, for a cluster, which cannot look into each client's rows in turn.
SWEEP_DUE_OF_CLIENT = f"""
    SELECT s.client_id, s.id, CASE WHEN {SWEPT["expired"]} THEN 'expired' WHEN {SWEPT["stale"]} THEN 'stale'
        WHEN {SWEPT["handed_back"]} THEN 'handed_back' END AS due
    {OPEN} AND s.client_id = $2"""

# A legal hold on the conversation or on its contact keeps everything of the conversation.
FREE = "s.hold_reason = '' AND p.hold_reason = ''"

# Only remembered conversations are archived. The index "to_be_archived" has no others.
ARCHIVES_AT = "({ended}) + c.archive_after"
IS_REMEMBERED = "s.remembered_at IS NOT NULL AND s.remember_due_at IS NULL AND s.archived_at IS NULL"
ARCHIVE_DUE = f"""
    FROM conversations s JOIN clients c ON c.id = s.client_id
    JOIN contacts p ON p.client_id = s.client_id AND p.id = s.contact_id
    WHERE {IS_REMEMBERED} AND {FREE} AND {ARCHIVES_AT.format(ended="s.ended_at")} <= $1"""


# --- retention --------------------------------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class Kept:
    """The rows of a retention rule, in SQL.

    setting     name of the setting with the days for clients without a policy
    rows        "FROM … WHERE …" of the rows that the rule deletes one day
    since       when their age begins
    free        condition under which no legal hold keeps them
    client, channel, status, id     columns of a row
    """

    setting: str
    rows: str
    since: str
    free: str = FREE
    client: str = "s.client_id"
    channel: str = "s.channel"
    status: str = "''"
    id: str = "s.id"


_SESSIONS = "FROM conversations s JOIN contacts p ON p.client_id = s.client_id AND p.id = s.contact_id WHERE "
_ENDED = _SESSIONS + "s.status IN ('closed', 'expired', 'archived')"
KEPT = {
    R.GUESTS: Kept("GUEST_DAYS", f"{_SESSIONS} s.status = 'expired' AND s.is_guest", "s.ended_at"),
    R.WEB: Kept(
        "COPILOT_IDLE_DAYS", f"{_SESSIONS} s.channel = 'web' AND s.status IN ('active', 'stale')", "s.last_message_at"
    ),
    R.SESSIONS: Kept(
        "SESSION_DAYS", f"{_ENDED} AND NOT (s.is_guest AND s.status = 'expired')", "s.ended_at", status="s.status"
    ),
    R.MEMORY: Kept(
        "MEMORY_DAYS",
        "FROM memories m LEFT JOIN conversations s ON s.client_id = m.client_id AND s.id = m.conversation_id"
        " LEFT JOIN contacts p ON p.client_id = m.client_id AND p.id = m.contact_id WHERE true",
        "m.ended_at",
        free="COALESCE(s.hold_reason, '') = '' AND COALESCE(p.hold_reason, '') = ''",
        client="m.client_id",
        channel="m.channel",
        id="m.conversation_id",
    ),
    R.TURNS: Kept(
        "TURN_DAYS",
        f"{_ENDED} AND EXISTS (SELECT FROM conversation_turns t"
        " WHERE t.client_id = s.client_id AND t.conversation_id = s.id AND t.status <> 'running')",
        "s.ended_at",
        status="s.status",
    ),
    R.SENDS: Kept(
        "SEND_DAYS",
        f"{_ENDED} AND EXISTS (SELECT FROM conversation_messages t"
        " WHERE t.client_id = s.client_id AND t.conversation_id = s.id"
        " AND t.status NOT IN ('queued', 'claimed', 'sending'))",
        "s.ended_at",
        status="s.status",
    ),
    R.EVENTS: Kept(
        "INBOUND_EVENT_DAYS",
        "FROM inbound_events e WHERE true",
        "e.received_at",
        # $2 and $3: client ids and patterns of contacts on hold (retention/mentions.py).
        free="""NOT EXISTS (
            SELECT FROM unnest($2::uuid[], $3::text[]) AS held(client_id, name)
            WHERE (e.client_id = held.client_id OR e.client_id IS NULL)
              AND (e.raw::text || ' ' || e.message_id) LIKE held.name)""",
        client="e.client_id",
        channel="e.channel",
        id="e.id",
    ),
}


def default_days(rule: str) -> int:
    """Return the rule's days for clients without a policy."""
    return int(getattr(settings, KEPT[R(rule)].setting))


def days(rule: str, status: str = "") -> str:
    """Return the SQL of the number of days that a row is kept.

    status: SQL to use in place of the row's status, if that will be another by then
    """
    kept = KEPT[R(rule)]
    return f"""COALESCE((
        SELECT r.days FROM retention_policies r
        WHERE r.client_id = {kept.client} AND r.rule = '{R(rule)}'
          AND r.channel IN ('', {kept.channel}) AND r.status IN ('', {status or kept.status})
        ORDER BY r.channel DESC, r.status DESC LIMIT 1), {default_days(rule)})"""


def kept_until(rule: str, since: str = "", status: str = "") -> str:
    """Return the SQL of the time at which a row is deleted.

    since, status: SQL to use in place of the row's values, if those are not known yet
    """
    return f"({since or KEPT[R(rule)].since}) + make_interval(days => {days(rule, status)})"


def retention_due(rule: str) -> str:
    """Return the SQL "FROM … WHERE …" of the rows that are old enough at $1, on hold or not.

    The first condition on the age is the same for all rows, so that an index can be used.
    """
    kept = KEPT[R(rule)]
    least = f"LEAST({default_days(rule)}, (SELECT min(days) FROM retention_policies WHERE rule = '{R(rule)}'))"
    return f"""{kept.rows} AND {kept.since} <= $1 - make_interval(days => {least}) AND {kept_until(rule)} <= $1"""
