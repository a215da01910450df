"""A conversation that is edited is locked, and what changed is saved, and nothing else."""

from __future__ import annotations

import threading

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from conversations.models import Client, Conversation
from conversations.services.core.errors import ConflictError, NotFoundError
from conversations.services.core.locking import editing, editing_if_there
from tests import factories

pytestmark = pytest.mark.django_db


@pytest.fixture
def conversation(shop: Client) -> Conversation:
    """An open conversation of the shop's."""
    made: Conversation = factories.ConversationFactory(client=shop, topic="Parcels", metadata={"a": 1})
    return made


def updates(captured: CaptureQueriesContext) -> list[str]:
    return [each["sql"] for each in captured.captured_queries if each["sql"].lstrip().startswith("UPDATE")]


def test_the_fields_that_changed_are_saved_and_no_others(conversation: Conversation) -> None:
    with CaptureQueriesContext(connection) as captured, editing(conversation.pk) as found:
        found.topic = "Kettles"
        Conversation.objects.filter(pk=conversation.pk).update(goal="set by somebody else")
    [_, saved] = updates(captured)
    assert '"topic"' in saved
    assert '"goal"' not in saved
    conversation.refresh_from_db()
    assert conversation.topic == "Kettles"
    assert conversation.goal == "set by somebody else"


def test_an_object_that_was_changed_in_place_is_saved(conversation: Conversation) -> None:
    with editing(conversation.pk) as found:
        found.metadata["b"] = [2]
    conversation.refresh_from_db()
    assert conversation.metadata == {"a": 1, "b": [2]}


def test_a_value_of_another_type_is_saved(conversation: Conversation) -> None:
    with editing(conversation.pk) as found:
        found.metadata = {"a": True}
    conversation.refresh_from_db()
    assert conversation.metadata["a"] is True


def test_where_nothing_changed_nothing_is_written(conversation: Conversation) -> None:
    with CaptureQueriesContext(connection) as captured, editing(conversation.pk) as found:
        found.topic = "Parcels"
    assert updates(captured) == []


def test_an_error_undoes_everything(conversation: Conversation) -> None:
    with pytest.raises(ZeroDivisionError), editing(conversation.pk) as found:  # noqa: PT012
        found.topic = "Kettles"
        raise ZeroDivisionError
    conversation.refresh_from_db()
    assert conversation.topic == "Parcels"


def test_a_block_that_is_left_early_saves_too(conversation: Conversation) -> None:
    def change() -> None:
        with editing(conversation.pk) as found:
            found.topic = "Kettles"
            return

    change()
    conversation.refresh_from_db()
    assert conversation.topic == "Kettles"


def test_another_client_s_conversation_is_not_found(conversation: Conversation) -> None:
    with pytest.raises(NotFoundError), editing(conversation.pk, factories.ClientFactory()):
        pass


def test_one_that_has_ended_is_refused_where_it_must_be_open(conversation: Conversation) -> None:
    Conversation.objects.filter(pk=conversation.pk).update(
        status="closed", ended_at=conversation.started_at, ended_by="user"
    )
    with pytest.raises(ConflictError) as refused, editing(conversation.pk, if_open=True):
        pass
    assert refused.value.code == "ended"
    with editing(conversation.pk) as found:
        assert found.status == "closed"


def test_one_that_was_deleted_is_none_where_that_is_expected(conversation: Conversation) -> None:
    Conversation.objects.filter(pk=conversation.pk)._raw_delete(using="default")
    with editing_if_there(conversation.pk) as found:
        assert found is None


@pytest.mark.django_db(transaction=True)
def test_two_who_edit_at_once_do_it_one_after_the_other(shop: Client) -> None:
    conversation = factories.ConversationFactory(client=shop, inbound_sequence=0)
    errors: list[Exception] = []

    def count() -> None:
        try:
            for _ in range(10):
                with editing(conversation.pk) as found:
                    found.inbound_sequence += 1
        except Exception as error:  # shown below
            errors.append(error)
        finally:
            connection.close()

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert errors == []
    conversation.refresh_from_db()
    assert conversation.inbound_sequence == 40
