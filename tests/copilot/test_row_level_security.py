"""Each table that the copilot's role may touch, as the database lists them: whose rows it sees there, and changes."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import psycopg
import pytest
from django.apps import apps
from django.conf import settings as django_settings
from django.db import connection
from django.utils import timezone
from psycopg import sql
from psycopg.errors import InsufficientPrivilege

from conversations.models import Chunk, Client, Contact, Conversation, Correction, Feedback, Membership
from conversations.services.copilot import turns
from conversations.services.copilot.turns import UserMessage
from conversations.services.replies.leases import claim_streamed
from conversations.services.replies.streaming_writer import NewText, store_deltas
from convo_project.postgresql.schema import SchemaEditor
from tests import factories
from tests.copilot.members import act_as, answered, as_user
from tests.copilot.reading import user
from tests.named_clients import IN_CLUSTER

pytestmark = pytest.mark.django_db(transaction=True)
on_one_server = pytest.mark.skipif(IN_CLUSTER, reason="there the role connects to the workers by itself")

# All that the role may do, by table. A new table here needs a row in `furnished`; the tests below then try it.
GRANTED = {
    "assistants": {"SELECT"},
    "chunk_corrections": {"SELECT"},
    "clients": {"SELECT"},
    "contacts": {"SELECT", "INSERT"},
    "conversation_chunks": {"SELECT", "INSERT", "UPDATE (metadata)"},
    "conversation_turns": {"SELECT", "INSERT", "UPDATE (stop_asked_at)"},
    "conversations": {
        *("SELECT", "DELETE", "UPDATE (inbound_sequence, last_message_at, last_position, topic)"),
    },
    "copilot_deltas": {"SELECT"},
    "copilot_feedback": {"SELECT", "INSERT", "UPDATE (given_at, note, rating)", "DELETE"},
    "memberships": {"SELECT"},
}
BY_USER_ALONE = {"memberships"}  # the user's own whatever becomes of the client


@dataclass
class Firms:
    """Two firms with a member each, who has something in every table; the first has a customer and another member."""

    ann: Any
    bob: Any
    colleague: Any


@pytest.fixture
def firms(transactional_db: Any) -> Firms:
    ours, theirs = (factories.ClientFactory(sub_domain=name) for name in ("ours", "theirs"))
    for client in (ours, theirs):
        factories.AssistantFactory(client=client, key="field", in_copilot=True)
    ann, bob, colleague = user("ann", ours), user("bob", theirs), user("cleo", ours)
    for who in (ann, bob, colleague):
        furnished(who)
    for channel in ("sms", "web"):  # a customer's
        customers = factories.ConversationFactory(client=ours, channel=channel)
        Chunk.objects.create(conversation=customers, position=1, role="user", content="A secret")
    of_ann = Contact.objects.get(login=ann)
    elsewhere = factories.ConversationFactory(client=ours, contact=of_ann, channel="sms")
    Chunk.objects.create(conversation=elsewhere, position=1, role="user", content="By text message")
    return Firms(ann, bob, colleague)


def furnished(who: Any) -> None:
    """A session with a corrected and rated reply, and another reply on its way."""
    asked = answered(who)
    reply = Chunk.objects.get(conversation=asked.session, role="ai")
    Correction.objects.create(chunk=reply, kind="correction", text="Better", reason="wrong", author_name="Maria")
    Feedback.objects.create(chunk=reply, conversation_id=reply.conversation_id, rating="up")
    turns.ask(as_user(who), UserMessage("And then?", asked.session.pk), timezone.now())
    [mine] = claim_streamed(timezone.now(), 10)
    store_deltas([NewText(mine, 0, "Then")])


# --- what it may ------------------------------------------------------------------------------------------------------
def asked_of_owner(query: str, *values: Any) -> list[tuple[Any, ...]]:
    with connection.cursor() as cursor:
        cursor.execute(query, values)
        found: list[tuple[Any, ...]] = cursor.fetchall()
    return found


def granted() -> dict[str, set[str]]:
    """Return the role's rights, also by way of PUBLIC or of another role: by table, with the columns where not all."""
    found: dict[str, set[str]] = {}
    for table, deed, whole, columns in asked_of_owner(
        """SELECT c.relname, d.deed, has_table_privilege(r.oid, c.oid, d.deed), array(
                SELECT a.attname FROM pg_attribute a
                WHERE d.deed NOT IN ('DELETE', 'TRUNCATE', 'TRIGGER')
                  AND a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
                  AND has_column_privilege(r.oid, c.oid, a.attnum, d.deed)
                ORDER BY a.attname)
        FROM pg_class c, pg_roles r,
            unnest('{SELECT,INSERT,UPDATE,DELETE,TRUNCATE,REFERENCES,TRIGGER}'::text[]) AS d(deed)
        WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f') AND c.relnamespace = current_schema()::regnamespace
          AND r.rolname = %s AND c.relname NOT IN ('citus_tables', 'citus_schemas')""",
        django_settings.COPILOT_ROLE,
    ):
        if whole or columns:
            found.setdefault(table, set()).add(deed if whole else f"{deed} ({', '.join(columns)})")
    return found


def test_the_role_may_do_this_and_nothing_else(db: Any) -> None:
    assert granted() == GRANTED


def test_every_table_of_the_role_is_confined_and_no_policy_lets_it_out(db: Any) -> None:
    role = django_settings.COPILOT_ROLE
    guarded = asked_of_owner(
        """SELECT c.relname FROM pg_class c
        WHERE c.relrowsecurity AND c.relkind IN ('r', 'p') AND c.relnamespace = current_schema()::regnamespace
        ORDER BY 1"""
    )
    assert [table for (table,) in guarded] == sorted(GRANTED)
    policies = asked_of_owner(
        """SELECT tablename, roles::text, cmd, qual, with_check FROM pg_policies WHERE schemaname = current_schema()"""
    )
    of_role = {table: (cmd, seen, written) for table, roles, cmd, seen, written in policies if role in roles}
    assert of_role.keys() == GRANTED.keys()
    for table, (cmd, *conditions) in of_role.items():
        assert cmd == "ALL"
        assert not [each for each in conditions if "SELECT" in each], f"{table}: columns alone are compared"
    others = [each for each in policies if role not in each[1]]
    assert sorted(table for table, *_ in others) == sorted(GRANTED)
    assert {tuple(each[1:]) for each in others} == {("{public}", "ALL", f"(CURRENT_USER <> '{role}'::name)", None)}


@on_one_server
def test_the_role_is_no_other_s_member_and_cannot_sign_in_or_pass_by_the_policies(db: Any) -> None:
    [attributes] = asked_of_owner(
        """SELECT rolsuper, rolbypassrls, rolcreaterole, rolcreatedb, rolcanlogin,
            EXISTS (SELECT FROM pg_auth_members WHERE member = pg_roles.oid)
        FROM pg_roles WHERE rolname = %s""",
        django_settings.COPILOT_ROLE,
    )
    assert attributes == (False,) * 6


def test_no_function_runs_as_the_tables_owner_for_whoever_calls_it(db: Any) -> None:
    of_owner = "SELECT proname FROM pg_proc WHERE prosecdef AND pronamespace = current_schema()::regnamespace"
    assert asked_of_owner(of_owner) == []


# --- what it sees -----------------------------------------------------------------------------------------------------
def become(raw: psycopg.Connection[Any], *who: Any) -> None:
    """The user of a transaction that begins, and nothing of the one before."""
    raw.rollback()
    act_as(raw, *who)


def seen(raw: psycopg.Connection[Any], *who: Any) -> dict[str, list[str]]:
    """All rows that the role sees for these users, by table."""
    become(raw, *who)
    found = {}
    for table in granted():
        query = sql.SQL("SELECT t::text FROM {} t ORDER BY 1").format(sql.Identifier(table))
        found[table] = [row for (row,) in raw.execute(query).fetchall()]
    return found


def test_each_user_sees_own_rows_in_every_table_and_no_other_s(firms: Firms, raw: psycopg.Connection[Any]) -> None:
    nobody, anns, bobs = seen(raw), seen(raw, firms.ann), seen(raw, firms.bob)
    assert not any(nobody.values()), nobody
    for table in granted():
        assert anns[table], f"{table}: nothing to see, so nothing is tried"
        assert bobs[table], table
        assert not set(anns[table]) & set(bobs[table]), table
    cleos = seen(raw, firms.colleague)
    for table in set(granted()) - {"clients", "assistants"}:
        assert not set(anns[table]) & set(cleos[table]), f"{table}: a colleague's"
    assert "A secret" not in str(anns)
    assert "By text message" not in str(anns), "the copilot is the web's alone"
    counts = {table: len(found) for table, found in anns.items()}
    assert (counts["clients"], counts["assistants"], counts["contacts"], counts["conversations"]) == (1, 1, 1, 1)
    both = seen(raw, firms.ann, firms.bob)
    assert all(sorted([*anns[table], *bobs[table]]) == both[table] for table in granted()), "as the feed asks"


def test_each_user_sees_every_row_below_the_own_sessions(firms: Firms, raw: psycopg.Connection[Any]) -> None:
    anns = seen(raw, firms.ann)
    for table in ("conversations", "conversation_chunks", "conversation_turns", "copilot_feedback"):
        assert len(anns[table]) == len(rows_of(table, firms.ann)), table


def test_sessions_of_before_are_given_their_user_by_the_migration(firms: Firms, raw: psycopg.Connection[Any]) -> None:
    tables = "conversations", "conversation_chunks", "conversation_turns", "copilot_feedback", "chunk_corrections"
    before = seen(raw, firms.ann)
    raw.rollback()
    with connection.cursor() as cursor:
        for table in tables:
            cursor.execute(f"UPDATE {table} SET login_id = NULL WHERE client_id = ANY (ARRAY(SELECT id FROM clients))")
    lost = seen(raw, firms.ann)
    raw.rollback()
    assert not any(lost[table] for table in tables)
    migration = import_module("conversations.migrations.0017_logins_of_sessions")
    migration.fill(apps, SchemaEditor(connection))
    assert seen(raw, firms.ann) == before
    theirs = Chunk.objects.filter(content__in=("A secret", "By text message"))
    assert set(theirs.values_list("login_id", flat=True)) == {None}


def membership_lost(who: Any) -> None:
    Membership.objects.filter(user=who).delete()


def client_off(who: Any) -> None:
    Client.objects.filter(memberships__user=who).update(is_active=False)


def member_elsewhere(who: Any) -> None:
    Membership.objects.filter(user=who).update(client=factories.ClientFactory(sub_domain="elsewhere"))


@pytest.mark.parametrize("loss", [membership_lost, client_off, member_elsewhere])
def test_what_a_user_lost_is_seen_in_no_table(
    firms: Firms, raw: psycopg.Connection[Any], loss: Callable[[Any], None]
) -> None:
    before, bobs = seen(raw, firms.ann), seen(raw, firms.bob)
    loss(firms.ann)
    after = seen(raw, firms.ann)
    for table in set(granted()) - BY_USER_ALONE:
        assert not set(before[table]) & set(after[table]), table
    assert seen(raw, firms.bob) == bobs


# --- what it changes --------------------------------------------------------------------------------------------------
def may(deed: str) -> list[str]:
    return sorted(table for table, deeds in GRANTED.items() if any(each.split(" ")[0] == deed for each in deeds))


def refused(raw: psycopg.Connection[Any], query: sql.Composable, *values: Any) -> bool:
    try:
        with raw.transaction(force_rollback=True):
            raw.execute(query, values)
    except InsufficientPrivilege:
        return True
    return False


def rows_of(table: str, who: Any) -> list[str]:
    """The user's rows as JSON, as the owner sees them."""
    mine = {
        "contacts": "t.login_id = %s",
        "conversations": "t.channel = 'web' AND EXISTS (SELECT FROM contacts p"
        " WHERE p.client_id = t.client_id AND p.id = t.contact_id AND p.login_id = %s)",
    }.get(
        table,
        "EXISTS (SELECT FROM conversations s JOIN contacts p ON p.client_id = s.client_id AND p.id = s.contact_id"
        " WHERE s.client_id = t.client_id AND s.id = t.conversation_id AND p.login_id = %s AND s.channel = 'web')",
    )
    found = [row for (row,) in asked_of_owner(f"SELECT to_json(t)::text FROM {table} t WHERE {mine}", who.pk)]
    assert found, table
    return found


def insert(table: str, row: str) -> sql.Composable:
    """An INSERT of a row that is given as JSON."""
    columns = [
        name
        for (name,) in asked_of_owner(
            "SELECT column_name FROM information_schema.columns WHERE table_schema = current_schema()"
            " AND table_name = %s AND is_generated = 'NEVER' ORDER BY ordinal_position",
            table,
        )
    ]
    names = sql.SQL(", ").join(map(sql.Identifier, columns))
    value = sql.SQL("(json_populate_record(NULL::{}, {}::json)).{}")
    values = [value.format(sql.Identifier(table), sql.Literal(row), sql.Identifier(name)) for name in columns]
    return sql.SQL("INSERT INTO {} ({}) VALUES ({})").format(sql.Identifier(table), names, sql.SQL(", ").join(values))


@pytest.mark.parametrize("table", may("INSERT"))
def test_no_row_is_written_for_somebody_else_nor_for_what_was_lost(
    firms: Firms, raw: psycopg.Connection[Any], table: str
) -> None:
    anns = [insert(table, row) for row in rows_of(table, firms.ann)]
    for who in (firms.bob, firms.colleague):
        become(raw, who)
        assert all(refused(raw, statement) for statement in anns)
    for session in locked_by(table, firms.ann):
        become(raw, firms.ann)
        lock(raw, session)
        with pytest.raises(psycopg.errors.UniqueViolation):  # she may write such a row, and it is there already
            raw.execute(anns[0])
    for loss in (client_off, membership_lost):
        Client.objects.update(is_active=True)
        loss(firms.ann)
        for session in locked_by(table, firms.ann):
            become(raw, firms.ann)
            lock(raw, session)
            assert all(refused(raw, statement) for statement in anns), loss


def locked_by(table: str, who: Any) -> list[Any]:
    """The session that is to be locked before a row of the table is written; none for a table that has none."""
    return [None] if table == "contacts" else [Conversation.objects.get(login_id=who.pk).pk]


def lock(raw: psycopg.Connection[Any], session: Any) -> None:
    """Say what the copilot says of a session that it has locked."""
    raw.execute(sql.SQL("SET LOCAL convo.session = {}").format(str(session or "")))


@pytest.mark.parametrize("table", ["conversation_chunks", "conversation_turns", "copilot_feedback"])
def test_no_row_of_one_s_own_is_written_below_a_session_that_is_not_locked(
    firms: Firms, raw: psycopg.Connection[Any], table: str
) -> None:
    anns = json.loads(rows_of(table, firms.ann)[0])
    mine, cleos = (Conversation.objects.get(login_id=who.pk).pk for who in (firms.ann, firms.colleague))
    in_cleos = insert(table, json.dumps({**anns, "conversation_id": str(cleos)}))
    for locked in (None, mine):
        become(raw, firms.ann)
        lock(raw, locked)
        assert refused(raw, in_cleos), "her own row, in a colleague's session"
    become(raw, firms.ann)
    assert refused(raw, insert(table, json.dumps(anns))), "in her own, which is not locked"


@pytest.mark.parametrize("table", may("UPDATE"))
def test_no_row_of_somebody_else_is_changed(firms: Firms, raw: psycopg.Connection[Any], table: str) -> None:
    column = {"conversation_chunks": "metadata", "conversation_turns": "stop_asked_at"}.get(table, "conversation_id")
    column = "topic" if table == "conversations" else "note" if table == "copilot_feedback" else column
    become(raw, firms.bob)
    lock(raw, Conversation.objects.get(login_id=firms.bob.pk).pk)
    query = sql.SQL("UPDATE {0} SET {1} = {1}").format(sql.Identifier(table), sql.Identifier(column))
    assert raw.execute(query).rowcount == len(rows_of(table, firms.bob))
    client_off(firms.bob)
    become(raw, firms.bob)
    assert raw.execute(query).rowcount == 0


@pytest.mark.parametrize("table", may("DELETE"))
def test_no_row_of_somebody_else_is_deleted(firms: Firms, raw: psycopg.Connection[Any], table: str) -> None:
    query = sql.SQL("DELETE FROM {}").format(sql.Identifier(table))
    client_off(firms.ann)
    become(raw, firms.ann)
    assert raw.execute(query).rowcount == 0
    become(raw, firms.bob)
    anns = rows_of(table, firms.ann)
    assert raw.execute(query).rowcount == len(rows_of(table, firms.bob))
    raw.commit()
    assert rows_of(table, firms.ann) == anns


def test_a_session_is_not_given_to_somebody_else_nor_taken_to_another_channel(
    firms: Firms, raw: psycopg.Connection[Any]
) -> None:
    hers = Contact.objects.get(login=firms.ann)
    become(raw, firms.bob)
    assert refused(raw, sql.SQL("UPDATE conversations SET contact_id = %s"), hers.pk)
    assert refused(raw, sql.SQL("UPDATE conversations SET channel = 'sms', thread = ''"))
    theirs = Conversation.objects.get(contact=hers, channel="web")
    assert refused(raw, sql.SQL("UPDATE copilot_feedback SET conversation_id = %s"), theirs.pk)
    mine = json.loads(rows_of("contacts", firms.bob)[0])
    stolen = {**mine, "id": "5f0c7a52-0000-4000-8000-000000000000", "user_id": "x", "client_id": str(hers.client_id)}
    assert refused(raw, insert("contacts", json.dumps(stolen))), "a contact at a client of which he is no member"
    stolen |= {"client_id": mine["client_id"], "login_id": firms.ann.pk}
    assert refused(raw, insert("contacts", json.dumps(stolen))), "a contact of another user"
