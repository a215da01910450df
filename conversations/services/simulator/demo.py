"""The demo client for trying Convo: with an API key, sandboxes, simulated accounts, assistants, a staff user, and a
team of theirs with round robin and a saved view."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from typing import Any

from django.contrib.auth import get_user_model
from django.db import transaction

from channels_out.kinds import Channel
from conversations.models import Assistant, ChannelAccount, Client, Membership, SavedView, Team, TeamMember
from conversations.models.choices import CHANNELS
from conversations.services.simulator import accounts
from conversations.services.tenants import api_keys, setup

SUB_DOMAIN = "demo"
STAFF = "admin"
COLLEAGUES = ("maria.demo", "max.demo")  # without a password: nobody signs in as them
TEAM, VIEW = "Support", "Support, longest wait"

ROLES = {
    # key: name and system prompt
    "field": (
        "Field technician",
        "You help technicians on site: inspections, safety on roofs, materials and how to fit them. Answer briefly and"
        " in steps that can be followed with one hand on a ladder. Say so when something needs a person on the spot.",
    ),
    "pm": (
        "Project manager",
        "You help project managers: plans, crews, materials, dates and budgets. Answer with lists and tables where they"
        " help, and name the risks and who decides.",
    ),
    "exec": (
        "Executive",
        "You help the management: figures, markets, strategy. Begin with the conclusion, then the reasons, then what is"
        " not known.",
    ),
}


@transaction.atomic
def set_up(known: Mapping[str, str]) -> dict[str, Any]:
    """Create what the demo client does not have yet. Returns its ids, API key, user name and password.

    known: an earlier answer; its `api_key` and `admin_password` are kept if they still work, else they are made anew
    """
    client = Client.objects.filter(sub_domain=SUB_DOMAIN).first() or setup.create_client("Demo", SUB_DOMAIN)
    for channel in Channel:
        _sandbox(client, channel)
    if client.is_active:
        accounts.set_up(client)
    for key, (name, prompt) in ROLES.items():
        Assistant.objects.get_or_create(
            client=client, key=key, defaults={"name": name, "system_prompt": prompt, "in_copilot": True}
        )
    password = _staff_password(client, known.get("admin_password", ""))
    if not Team.objects.filter(client=client).exists():
        _team(client)
    return {
        "client_id": str(client.pk),
        "sub_domain": client.sub_domain,
        "api_key": _api_key(client, known.get("api_key", "")),
        "admin_username": STAFF,
        "admin_password": password,
    }


def _sandbox(client: Client, channel: Channel) -> None:
    """Make the sandbox account of the channel. One from an earlier version gets the channel's real name."""
    name = f"Sandbox {dict(CHANNELS)[channel.value]}"
    account, _was_made = ChannelAccount.objects.get_or_create(
        client=client, channel=channel, provider="sandbox", address="sandbox", defaults={"name": name}
    )
    if account.name == f"Sandbox {channel}":
        ChannelAccount.objects.filter(client=client, pk=account.pk).update(name=name)


def _team(client: Client) -> None:
    """Make a team with round robin, whose available member is the staff user, and a shared view of it."""
    team = Team.objects.create(client=client, name=TEAM, is_default=True, hands_out=True)
    users = get_user_model().objects
    for name in (STAFF, *COLLEAGUES):
        user = users.filter(username=name).first() or users.create_user(name, is_staff=True)
        role = Membership.Role.MANAGER if name == STAFF else Membership.Role.AGENT
        membership, _was_made = Membership.objects.get_or_create(client=client, user=user, defaults={"role": role})
        TeamMember.objects.create(client=client, team=team, membership=membership)
        Membership.objects.filter(client=client, pk=membership.pk).update(is_available=name == STAFF)
    filters = {"team": str(team.pk), "order": "waiting"}
    SavedView.objects.get_or_create(client=client, owner=None, name=VIEW, defaults={"filters": filters})


def _api_key(client: Client, known: str) -> str:
    found = api_keys.find_api_key(known) if known else None
    return known if found and found.client_id == client.pk else api_keys.create_api_key(client, "quickstart")[1]


def _staff_password(client: Client, known: str) -> str:
    users = get_user_model().objects
    user = users.filter(username=STAFF).first() or users.create_superuser(STAFF, "", None)
    Membership.objects.get_or_create(client=client, user=user, defaults={"role": Membership.Role.MANAGER})
    if known and user.check_password(known):
        return known
    password = secrets.token_urlsafe(12)
    user.set_password(password)
    user.save(update_fields=["password"])
    return password
