"""The words of e-mails to staff: counts, names, times and links. Nothing that a customer wrote is in them.

They are in the language that the person chose for the back office; in English if they chose none.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Protocol
from uuid import UUID
from zoneinfo import ZoneInfo

from django.conf import settings
from django.core.mail import EmailMessage
from django.urls import reverse
from django.utils import translation
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from conversations.models import Client, MailChoice, StaffMail
from conversations.models.choices import CHANNELS
from conversations.services.desk import mail_choices
from conversations.services.tenants import preferences

MOST = 20  # conversations that a mail names
LONGEST_NAME = 60  # characters


class Told(Protocol):
    """A conversation that waits (mails.Waiting)."""

    @property
    def id(self) -> UUID:
        """Return its id."""

    @property
    def since(self) -> datetime:
        """Return since when it waits."""

    @property
    def name(self) -> str:
        """Return the contact's name; '' for none."""

    @property
    def channel(self) -> str:
        """Return the channel."""


def message(mail: StaffMail, choice: MailChoice, told: Sequence[Told], now: datetime) -> EmailMessage:
    """Return the e-mail about these conversations, in the language of the person."""
    with translation.override(preferences.language_of(mail.user_id)):
        return _message(mail, choice, told, now)


def _message(mail: StaffMail, choice: MailChoice, told: Sequence[Told], now: datetime) -> EmailMessage:
    client = _line(Client.objects.get(pk=mail.client_id).name)
    count = len(told)
    subject = ngettext("%(client)s: 1 conversation waits", "%(client)s: %(count)s conversations wait", count)
    subject = subject % {"client": client, "count": count}
    end = mail_choices.unsubscribe_link(mail.user_id, mail.kind)
    return EmailMessage(
        subject,
        _body(mail, choice, told, now, end),
        settings.DEFAULT_FROM_EMAIL,
        [choice.address],
        headers={
            "List-Unsubscribe": f"<{end}>",
            "List-Unsubscribe-Post": "List-Unsubscribe=One-Click",
            "Auto-Submitted": "auto-generated",
            "Message-ID": f"<convo-{mail.client_id}-{mail.pk}@{_host()}>",  # the same where it is sent once more
        },
    )


def _body(mail: StaffMail, choice: MailChoice, told: Sequence[Told], now: datetime, end: str) -> str:
    zone = ZoneInfo(choice.time_zone)
    if mail.kind == StaffMail.Kind.DIGEST:
        head = _("This waits for you, or for anybody who answers:")
    else:
        values = {"minutes": choice.after_minutes}
        head = ngettext(
            "This waits for longer than %(minutes)s minute:", "This waits for longer than %(minutes)s minutes:",
            choice.after_minutes,
        ) % values  # fmt: skip
    lines = [_item(each, zone, now) for each in told[:MOST]]
    if len(told) > MOST:
        lines.append(_("And %(count)s more.") % {"count": len(told) - MOST})
    inbox = settings.PUBLIC_BASE_URL + reverse("inbox:page")
    choices = settings.PUBLIC_BASE_URL + reverse("mail_choice")
    tail = [
        _("The inbox: %(link)s") % {"link": inbox},
        _("Times are those of %(zone)s. Change what you are told: %(link)s") % {"zone": zone.key, "link": choices},
        _("No such e-mails any more: %(link)s") % {"link": end},
    ]
    return "\n\n".join([head, *lines, *tail]) + "\n"


def _item(each: Told, zone: ZoneInfo, now: datetime) -> str:
    since = each.since.astimezone(zone)
    is_today = since.date() == now.astimezone(zone).date()
    values: dict[str, Any] = {
        "name": _line(each.name) or _("A customer"),
        "channel": dict(CHANNELS).get(each.channel, each.channel),
        "since": f"{since:%H:%M}" if is_today else f"{since:%Y-%m-%d %H:%M}",
        "link": settings.PUBLIC_BASE_URL + reverse("inbox:open", args=[each.id]),
    }
    return _("%(name)s on %(channel)s, since %(since)s\n%(link)s") % values


def _line(name: str) -> str:
    """Return the name in one line, without what could be taken for an address or a link."""
    words = " ".join(name.split())
    return words[:LONGEST_NAME] if not set("@/:<>") & set(words) and not words.strip("+ ()-").isdigit() else ""


def _host() -> str:
    return settings.DEFAULT_FROM_EMAIL.rpartition("@")[2].rstrip("> ") or "localhost"
