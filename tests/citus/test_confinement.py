"""The copilot's confinement in a cluster: its role sees the user's own rows, and none where the setting is lost."""

from __future__ import annotations

import pytest
from django.conf import settings
from django.contrib.auth.models import User
from django.db import connection, transaction
from django.utils import timezone

from conversations.models import Conversation, Membership
from conversations.services.copilot import sessions, turns
from conversations.services.copilot.turns import UserMessage
from conversations.services.core.errors import NotFoundError
from conversations.services.core.row_level_security import confined_to
from tests import factories
from tests.citus.places import ONLY_IN_CLUSTER

pytestmark = [*ONLY_IN_CLUSTER, pytest.mark.django_db(transaction=True), pytest.mark.forgets_the_client]
TABLES = ("contacts", "conversations", "conversation_chunks", "conversation_turns")


def signed_in(name: str) -> sessions.User:
    """A user of a client of their own, which has a customer's conversation too, with a session of theirs."""
    client = factories.ClientFactory(sub_domain=name)
    factories.AssistantFactory(client=client, key="field", in_copilot=True)
    user = User.objects.create(username=name)
    Membership.objects.create(client=client, user=user, role=Membership.Role.VIEWER)
    factories.ConversationFactory(client=client)
    found = sessions.User(id=user.pk, name=name)
    turns.ask(found, UserMessage(f"Hello from {name}"), timezone.now())
    return found


def seen() -> dict[str, int]:
    found = {}
    with connection.cursor() as cursor:
        for table in TABLES:
            cursor.execute(f"SELECT count(*) FROM {table}")
            [(found[table],)] = cursor.fetchall()
    return found


def take_on_role() -> None:
    with connection.cursor() as cursor:
        cursor.execute(f'SET LOCAL ROLE "{settings.COPILOT_ROLE}"')


def test_each_user_sees_own_rows_alone() -> None:
    own = {
        "contacts": 1,
        "conversations": 1,
        "conversation_chunks": 3,
        "conversation_turns": 1,
    }
    users = [signed_in("ann"), signed_in("bob")]
    for user in users:
        with confined_to(user.id):
            assert seen() == own
    ann, bob = users
    [theirs] = sessions.sessions(bob, 10)
    with pytest.raises(NotFoundError):
        sessions.session(ann, theirs.pk)
    assert Conversation.objects.count() == 4


def test_a_setting_that_is_lost_shows_nothing() -> None:
    ann = signed_in("ann")
    nothing = dict.fromkeys(TABLES, 0)
    with transaction.atomic():
        take_on_role()
        assert seen() == nothing
    with transaction.atomic():
        take_on_role()
        with connection.cursor() as cursor:  # it does not reach the workers
            cursor.execute("SELECT set_config('convo.logins', %s, true)", [str(ann.id)])
        assert seen() == nothing


def test_a_session_goes_with_all_that_is_below_it() -> None:
    ann = signed_in("ann")
    [session] = sessions.sessions(ann, 10)
    turns.ask(ann, UserMessage("And another"), timezone.now())
    sessions.delete(ann, session.pk)
    assert session.pk not in {each.pk for each in sessions.sessions(ann, 10)}
