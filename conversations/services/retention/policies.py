"""A client's retention policies: read and replaced as a whole."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from uuid import UUID

from django.db import transaction
from django.utils.translation import gettext

from conversations.models import Client, RetentionPolicy, RetentionRule
from conversations.models.retention import BY_STATUS, ENDED_STATUSES, FOR_EVER
from conversations.services.core.errors import InvalidError
from conversations.words import whole

CHANNELS = {value for value, _ in RetentionPolicy._meta.get_field("channel").choices or ()}


@dataclass(frozen=True, slots=True, order=True)
class Policy:
    """The number of days that the rule's data is kept; on a channel and for a status, or for all ('')."""

    rule: str
    channel: str
    status: str
    days: int


def policies_of(client: Client | UUID) -> list[Policy]:
    """Return the client's policies, sorted. For everything else the settings count."""
    rows = RetentionPolicy.objects.filter(client=client).values_list("rule", "channel", "status", "days")
    return sorted(Policy(*row) for row in rows)


def replace(client: Client, policies: Iterable[Policy]) -> None:
    """Replace the client's policies with these.

    Raises InvalidError: `doubled`, `unknown_rule`, `unknown_channel`, `unknown_status` or `impossible_days`.
    """
    wanted = sorted(set(policies))
    for policy in wanted:
        _check(policy)
    places = [(policy.rule, policy.channel, policy.status) for policy in wanted]
    if len(set(places)) < len(places):
        raise InvalidError(gettext("A rule can have only one number of days for a channel and status."), code="doubled")
    with transaction.atomic():
        Client.objects.select_for_update(no_key=True).get(pk=client.pk)  # simultaneous saves wait here
        RetentionPolicy.objects.filter(client=client).delete()
        RetentionPolicy.objects.bulk_create(
            RetentionPolicy(
                client=client, rule=policy.rule, channel=policy.channel, status=policy.status, days=policy.days
            )
            for policy in wanted
        )


def _check(policy: Policy) -> None:
    if policy.rule not in RetentionRule.values:
        raise InvalidError(
            gettext("There is no retention rule %(rule)s.") % {"rule": repr(policy.rule)}, code="unknown_rule"
        )
    if policy.channel and policy.channel not in CHANNELS:
        raise InvalidError(
            gettext("There is no channel %(channel)s.") % {"channel": repr(policy.channel)}, code="unknown_channel"
        )
    if policy.status and (policy.status not in ENDED_STATUSES or policy.rule not in BY_STATUS):
        rule = RetentionRule(policy.rule).shown
        raise InvalidError(
            gettext("The rule %(rule)s cannot have days for the status %(status)s.")
            % {"rule": rule, "status": repr(policy.status)},
            code="unknown_status",
        )
    if not 0 <= policy.days <= FOR_EVER:
        raise InvalidError(
            gettext("Enter a number of days from 0 to %(most)s.") % {"most": whole(FOR_EVER)},
            code="impossible_days",
        )


def in_words(policies: Iterable[Policy]) -> str:
    """Return the policies as one line for the audit log, such as "sessions sms 30, turns 10"."""
    said = []
    for policy in policies:
        where = " ".join(word for word in (policy.channel, policy.status) if word)
        said.append(f"{RetentionRule(policy.rule).shown}{f' {where}' if where else ''} {policy.days}")
    return ", ".join(said) or "the settings'"
