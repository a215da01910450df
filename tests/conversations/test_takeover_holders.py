"""The holder of a conversation: people are told apart by who they are, and not by their names alone."""

from __future__ import annotations

import pytest
from django.utils import timezone

from conversations.models import Conversation
from conversations.services.core.ledger import Actor
from conversations.services.transitions import takeover
from tests.conversations.staff import staff
from tests.conversations.test_takeover import HOURS, MAX, conversation, kinds, said, taken

__all__ = ["conversation"]  # the fixture

pytestmark = pytest.mark.django_db


def test_a_colleague_of_the_same_name_is_another_person(conversation):
    """Names of staff are not unique: programs name whom they like."""
    users = [staff("grace"), staff("grace.two")]
    first, second = (Actor("staff", "grace", user.pk) for user in users)
    taken(conversation, first)
    for other in (second, Actor("api", "grace"), Actor("staff", "grace")):
        with pytest.raises(takeover.ConflictError, match="grace has this conversation"):
            taken(conversation, other)
    with pytest.raises(takeover.ConflictError):
        taken(conversation, Actor("staff", "hopper", users[0].pk), name="hopper")
    assert Conversation.objects.get().taken_over_by == users[0]
    taken(conversation, second, from_colleague=True)
    assert Conversation.objects.get().taken_over_by == users[1]


def test_a_program_s_name_is_no_user_of_that_name(conversation):
    taken(conversation, Actor("api", "shop key"), name="grace")
    with pytest.raises(takeover.ConflictError, match="grace has this conversation"):
        taken(conversation, Actor("staff", "grace", staff("grace").pk))
    taken(conversation, Actor("api", "another key"), name="grace")
    assert kinds() == ["opened", "taken_over"], "for programs the name is all there is"


def test_who_has_it_keeps_it_for_longer_and_is_not_told_of_again(conversation):
    grace, name = Actor("staff", "grace", staff("grace").pk), "g" * 300
    first = taken(conversation, grace, name=name, tell=True)
    later = first.taken_over_at + HOURS
    again = takeover.take_over(conversation.pk, actor=grace, now=later, name=name, tell=True)
    assert (again.taken_over_at, again.taken_over_name) == (first.taken_over_at, "g" * takeover.LONGEST_NAME)
    assert again.taken_over_until - first.taken_over_until == later - first.taken_over_at
    taken(conversation, MAX, from_colleague=True, tell=True)
    assert kinds() == ["opened", "taken_over", "taken_over"]
    assert said().count("A colleague will take it from here.") == 1


def test_nobody_with_a_name_does_not_have_what_waits(conversation):
    takeover.take_over(conversation.pk, actor=Actor("system"), now=timezone.now())
    before = Conversation.objects.get().taken_over_until
    takeover.take_over(conversation.pk, actor=Actor("system"), now=timezone.now() + HOURS)
    assert Conversation.objects.get().taken_over_until - before >= HOURS
    assert kinds() == ["opened", "taken_over", "taken_over"]
    taken(conversation)
    assert Conversation.objects.get().taken_over_name == "grace"
