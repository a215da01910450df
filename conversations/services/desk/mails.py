"""E-mails to staff about what waits: queued as rows, then sent, each once.

    queue   what is due to be told becomes a mail and its marks, in one transaction
    send    claim (a lease on the row) ─► the mail server ─► sent; not taken: later again, at most ATTEMPTS times

A process that dies between the mail server's answer and the row leaves a claim of which nobody knows what became: the
mail is sent once more, and given up where that happens again. So no mail is sent more than twice. Without EMAIL_HOST
nothing is queued and nothing is sent.
"""

from __future__ import annotations

import logging
import smtplib
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

from django.core.mail import get_connection
from django.db import transaction

from conversations.models import MailChoice, MailMark, Membership, StaffMail
from conversations.services.core.cluster import of_each
from conversations.services.core.rotation import clients_in
from conversations.services.core.sql import exclusively, rows
from conversations.services.desk import mail_choices, mail_texts
from conversations.services.desk.inbox import IN_SIGHT, WAITS
from conversations.services.desk.states import WRITERS
from conversations.services.tenants.promises import WAITS_SINCE

log = logging.getLogger(__name__)

ATTEMPTS = 6  # at the mail server; with the pauses between them half an hour
LEASE = timedelta(minutes=10)  # longer than a mail server may take
MOST_WAITING = 1_000  # conversations of one client that are looked at
KEPT = timedelta(days=30)
DIGEST_LASTS = timedelta(hours=1)  # after the chosen hour, should the queue be late
K, S = StaffMail.Kind, StaffMail.State

# What waits at a client: read from the two indexes of what waits, longest first.
_WAITING = f"""
    SELECT s.id, {WAITS_SINCE} AS since, s.taken_over_by_id, s.taken_over_name, d.assignee_id, k.name, s.channel
    FROM conversations s
    JOIN contacts k ON k.client_id = s.client_id AND k.id = s.contact_id
    LEFT JOIN desk_states d ON d.client_id = s.client_id AND d.conversation_id = s.id
    WHERE s.client_id = $1 AND {WAITS} AND {IN_SIGHT} ORDER BY 2 LIMIT {MOST_WAITING}"""


@dataclass(frozen=True, slots=True)
class Waiting:
    """A conversation that waits for a person, with whoever has it or is responsible; None: nobody."""

    id: UUID
    since: datetime
    holder_id: int | None
    is_held: bool
    name: str
    channel: str

    def is_told_to(self, user_id: int, *, mine: bool, unassigned: bool) -> bool:
        """Return whether the user wants to be told of it."""
        return mine if self.holder_id == user_id else unassigned and not self.is_held


def tell(now: datetime, until: float = float("inf")) -> int:
    """Queue what is to be told and send it; return how many mails were sent.

    until: the value of `time.monotonic()` after which no other mail is begun
    """
    if not mail_choices.is_configured():
        return 0
    queue(now)
    return send(now, until)


def delete_old(now: datetime) -> None:
    """Delete the mails that were queued more than KEPT ago, with their marks."""
    clients = [(client_id,) for client_id in clients_in("staff_mails")]
    for _ in of_each(clients, lambda pk: StaffMail.objects.filter(client=pk, created_at__lt=now - KEPT).delete()):
        pass


def waiting_at(client_id: UUID) -> list[Waiting]:
    """Return what waits at the client, the longest first."""
    return [
        Waiting(pk, since, taken_by or (None if taken_name else assignee), bool(taken_name or assignee), name, channel)
        for pk, since, taken_by, taken_name, assignee, name, channel in rows(_WAITING, client_id)
    ]


# --- queueing ---------------------------------------------------------------------------------------------------------
def queue(now: datetime) -> None:
    """Queue a mail for whoever is to be told something that they were not told yet."""
    with exclusively("convo.tell_staff") as only_one:
        if only_one:
            for _ in of_each([(client_id, of, now) for client_id, of in _choices().items()], _queue_of):
                pass


def _choices() -> dict[UUID, list[MailChoice]]:
    """Return the choices of those who want any mail, by the clients in which they may answer."""
    wants = {each.user_id: each for each in MailChoice.objects.all() if _wants(each, K.WAITING) or each.tells_digest}
    members = Membership.objects.filter(
        user__in=list(wants), user__is_active=True, user__is_staff=True, role__in=WRITERS, client__is_active=True
    )
    found: dict[UUID, list[MailChoice]] = {}
    for client_id, user_id in members.order_by("client", "user").values_list("client", "user"):
        found.setdefault(client_id, []).append(wants[user_id])
    return found


def _wants(choice: MailChoice, kind: str) -> bool:
    return choice.tells_digest if kind == K.DIGEST else choice.tells_mine or choice.tells_unassigned


def _queue_of(client_id: UUID, choices: Sequence[MailChoice], now: datetime) -> None:
    waiting = waiting_at(client_id)
    for choice in choices if waiting else ():
        _queue_waiting(client_id, choice, waiting, now)
        _queue_digest(client_id, choice, waiting, now)


def _of_user(choice: MailChoice, waiting: Iterable[Waiting], kind: str) -> list[Waiting]:
    """Return what the user is told of in a mail of the kind: a digest has both, whatever they chose for the other."""
    mine, unassigned = (True, True) if kind == K.DIGEST else (choice.tells_mine, choice.tells_unassigned)
    return [each for each in waiting if each.is_told_to(choice.user_id, mine=mine, unassigned=unassigned)]


def _queue_waiting(client_id: UUID, choice: MailChoice, waiting: Iterable[Waiting], now: datetime) -> None:
    late = now - timedelta(minutes=choice.after_minutes)
    due = {(each.id, each.since) for each in _of_user(choice, waiting, K.WAITING) if each.since <= late}
    if not due:
        return
    of_user = MailMark.objects.filter(client=client_id, user=choice.user_id, conversation__in=[pk for pk, _ in due])
    new = due - set(of_user.values_list("conversation_id", "since"))
    if not new:
        return
    with transaction.atomic():
        mail = StaffMail.objects.create(client_id=client_id, user_id=choice.user_id, kind=K.WAITING, due_at=now)
        MailMark.objects.bulk_create(
            MailMark(client_id=client_id, mail=mail, user_id=choice.user_id, conversation_id=pk, since=since)
            for pk, since in new
        )


def _queue_digest(client_id: UUID, choice: MailChoice, waiting: Iterable[Waiting], now: datetime) -> None:
    local = now.astimezone(ZoneInfo(choice.time_zone))
    begins = local.replace(hour=choice.digest_hour, minute=0, second=0, microsecond=0)
    is_time = choice.tells_digest and timedelta() <= local - begins < DIGEST_LASTS
    if not is_time or mail_choices.is_here(choice, now) or not _of_user(choice, waiting, K.DIGEST):
        return
    StaffMail.objects.get_or_create(
        client_id=client_id, user_id=choice.user_id, day=local.date(), defaults={"kind": K.DIGEST, "due_at": now}
    )


# --- sending ----------------------------------------------------------------------------------------------------------
def send(now: datetime, until: float = float("inf")) -> int:
    """Send the mails that are due, and return how many the mail server took.

    Where it cannot be reached the others wait for the next time: they have lost no attempt.
    """
    server, sent = _Server(), 0
    try:
        for mail in _claimed(now, until):
            if not server.is_away:
                sent += _send(mail, server, now)
            else:
                _settle(mail, lease_until=None)
    finally:
        server.close()
    return sent


def _claimed(now: datetime, until: float) -> Iterator[StaffMail]:
    def due_of(client_id: UUID) -> list[tuple[UUID, int, datetime]]:
        due = StaffMail.objects.filter(client=client_id, state=S.QUEUED, due_at__lte=now)
        return [(client_id, pk, now) for pk in due.order_by("due_at").values_list("pk", flat=True)]

    clients = [(client_id,) for client_id in clients_in("staff_mails", "state = 'queued'")]
    for due in of_each(clients, due_of):
        for which in due:
            mail = next(of_each([which], claim), None) if time.monotonic() < until else None
            if mail:
                yield mail


def claim(client_id: UUID, mail_id: int, now: datetime) -> StaffMail | None:
    """Claim the mail and return it; None if it is not due, or another process has it, or it was lost twice."""
    with transaction.atomic():
        due = StaffMail.objects.filter(client=client_id, pk=mail_id, state=S.QUEUED, due_at__lte=now)
        mail = due.select_for_update(skip_locked=True).first()
        if mail is None or (mail.lease_until and mail.lease_until > now):
            return None
        if mail.lease_until:
            mail.lost += 1
        if mail.lost > 1:
            mail.state, mail.error, mail.lease_until = S.FAILED, "lost", None
        else:
            mail.lease_until = now + LEASE
        mail.save(update_fields=["lost", "state", "error", "lease_until"])
    return mail if mail.state == S.QUEUED else None


def _send(mail: StaffMail, server: _Server, now: datetime) -> bool:
    choice = MailChoice.objects.filter(user=mail.user_id, user__is_active=True).select_related("user").first()
    told = _content(mail, choice) if choice and _wants(choice, mail.kind) and _is_member(mail) else []
    if not choice or not told:
        _settle(mail, state=S.DROPPED, lease_until=None)
        return False
    try:
        server.send(mail_texts.message(mail, choice, told, now))
    except (smtplib.SMTPException, OSError) as error:
        _note_failure(mail, error, now, is_unclear=server.is_unclear)
        return False
    _settle(mail, state=S.SENT, lease_until=None, error="")
    return True


def _is_member(mail: StaffMail) -> bool:
    members = Membership.objects.filter(client=mail.client_id, user=mail.user_id, role__in=WRITERS)
    return members.filter(client__is_active=True).exists()


def _content(mail: StaffMail, choice: MailChoice) -> list[Waiting]:
    """Return what of the mail still waits."""
    waiting = _of_user(choice, waiting_at(mail.client_id), mail.kind)
    if mail.kind == K.DIGEST:
        return waiting
    marks = MailMark.objects.filter(client=mail.client_id, mail=mail.pk)
    marked = set(marks.values_list("conversation_id", "since"))
    return [each for each in waiting if (each.id, each.since) in marked]


def _note_failure(mail: StaffMail, error: Exception, now: datetime, *, is_unclear: bool) -> None:
    """Note that the mail server did not take the mail, or that nobody knows: then it is tried once more at most."""
    attempts, lost = mail.attempts + 1, mail.lost + is_unclear
    code = getattr(error, "smtp_code", "") or ""
    word = f"{type(error).__name__} {code}".strip()[:100]
    is_over = attempts >= ATTEMPTS or lost > 1 or _is_final(error)
    _settle(
        mail,
        attempts=attempts,
        lost=lost,
        error=word,
        lease_until=None,
        state=S.FAILED if is_over else S.QUEUED,
        due_at=now + timedelta(minutes=2 ** (attempts - 1)),
    )
    log.warning("mail not sent: client=%s mail=%s error=%s attempt=%s", mail.client_id, mail.pk, word, attempts)


def _is_final(error: Exception) -> bool:
    """Return whether the server refused this mail for good; what it says of us (a password, say) may be mended."""
    if isinstance(error, smtplib.SMTPRecipientsRefused):
        return all(code >= 500 for code, _ in error.recipients.values())
    return isinstance(error, smtplib.SMTPDataError) and error.smtp_code >= 500


def _settle(mail: StaffMail, **values: Any) -> None:
    """Write the outcome, if the claim is still ours."""
    ours = StaffMail.objects.filter(client=mail.client_id, pk=mail.pk, state=S.QUEUED, lease_until=mail.lease_until)
    ours.update(**values)


class _Server:
    """The mail server of Django's settings: one connection for all mails of a run.

    is_away     it could not be reached, or lets nobody in
    is_unclear  the last mail was given to it, and no answer came
    """

    def __init__(self) -> None:
        self._connection: Any = None
        self.is_away = self.is_unclear = False

    def send(self, message: Any) -> None:
        """Send the message. Raises SMTPException or OSError."""
        self.is_unclear = False
        if self._connection is None:
            self._connection = get_connection()
            try:
                self._connection.open()
            except (smtplib.SMTPException, OSError):
                self.is_away, self._connection = True, None
                raise
        try:
            self._connection.send_messages([message])
        except (smtplib.SMTPServerDisconnected, OSError) as error:
            self.is_unclear = not isinstance(error, smtplib.SMTPResponseException | smtplib.SMTPRecipientsRefused)
            self.close()
            raise

    def close(self) -> None:
        """Close the connection."""
        connection, self._connection = self._connection, None
        if connection is not None:
            try:
                connection.close()
            except (smtplib.SMTPException, OSError) as error:
                log.info("mail server: closing failed: class=%s", type(error).__name__)
