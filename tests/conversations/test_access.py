"""The rules of who may see and do what: roles, superusers, and users who were switched off."""

from __future__ import annotations

import pytest

from conversations.admin import access
from conversations.models import Membership
from tests.conversations.staff import staff, superuser

pytestmark = pytest.mark.django_db


@pytest.mark.parametrize("role", ["viewer", "agent", "manager"])
def test_a_role_includes_the_lower_ones_in_its_own_client_alone(shop, neighbour, role):
    user = staff("rita", **{shop.sub_domain: role})
    order = ["viewer", "agent", "manager"]
    for wanted in order:
        may = order.index(role) >= order.index(wanted)
        assert access.can(user, wanted, shop) is access.can(user, wanted, shop.pk) is may
        assert access.can_somewhere(user, wanted) is may
        assert access.client_ids_of(user, wanted) == [shop.pk] * may
        assert list(access.clients_of(user, wanted)) == [shop] * may
        assert not access.can(user, wanted, neighbour)
    assert (access.role_in(user, shop), access.role_in(user, neighbour)) == (role, None)


@pytest.mark.parametrize("is_superuser", [True, False])
def test_who_was_switched_off_may_nothing(shop, is_superuser):
    user = staff("rita", **{shop.sub_domain: "manager"})
    user.is_superuser, user.is_active = is_superuser, False
    assert (access.role_in(user, shop), access.client_ids_of(user)) == (None, [])
    assert not access.clients_of(user).exists()
    assert not access.can_somewhere(user, "viewer")
    assert not access.can_see_prompts(user, shop)
    user.is_active = True
    assert access.can_see_prompts(user, shop)


def test_a_superuser_manages_every_client_without_a_membership(shop, neighbour):
    boss = superuser()
    assert set(access.clients_of(boss, "manager")) == {shop, neighbour}
    assert access.role_in(boss, neighbour) == "manager"
    assert access.can_somewhere(boss, "manager")
    assert access.client_ids_of(boss) == []


def test_prompts_are_shown_to_managers_and_to_whom_they_were_opened(shop, neighbour):
    user = staff("rita", **{shop.sub_domain: "viewer", neighbour.sub_domain: "agent"})
    assert not access.can_see_prompts(user, shop)
    Membership.objects.filter(user=user, client=shop).update(sees_receipts=True)
    again = type(user).objects.get(pk=user.pk)
    assert access.can_see_prompts(again, shop)
    assert access.can_see_prompts(again, shop.pk)
    assert not access.can_see_prompts(again, neighbour)
