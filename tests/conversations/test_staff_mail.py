"""E-mails to staff, over a real mail server: who is told what, once, also where the server or a process fails."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.core.mail.backends.smtp import EmailBackend
from django.test import Client as HttpClient
from django.urls import reverse
from django.utils import timezone

from conversations.admin.access import Role
from conversations.models import Client, Conversation, MailChoice, MailMark, Membership, StaffMail
from conversations.services.core.ledger import Actor
from conversations.services.desk import mail_choices, mails, states
from conversations.services.tenants import preferences
from conversations.services.transitions import takeover
from tests import factories
from tests.conversations.staff import signed_in, staff
from tests.fakes.smtp import FakeMailServer
from tests.races.threads import together

pytestmark = pytest.mark.django_db

NOW = datetime(2026, 11, 30, 14, 5, tzinfo=UTC)
MINUTE = timedelta(minutes=1)


@pytest.fixture
def server(settings: Any) -> Iterator[FakeMailServer]:
    """The installation's mail server."""
    with FakeMailServer() as fake:
        configure(settings, fake.port)
        yield fake


def configure(settings: Any, port: int) -> None:
    settings.EMAIL_BACKEND = "django.core.mail.backends.smtp.EmailBackend"
    settings.EMAIL_HOST, settings.EMAIL_PORT, settings.EMAIL_TIMEOUT = "127.0.0.1", port, 2
    settings.EMAIL_USE_TLS = settings.EMAIL_USE_SSL = False
    settings.DEFAULT_FROM_EMAIL = "Convo <convo@example.org>"
    settings.PUBLIC_BASE_URL = "https://convo.example.org"


def wants(user: Any, **choice: Any) -> MailChoice:
    values = {"tells_mine": True, "tells_unassigned": True, "after_minutes": 10, **choice}
    made, _ = MailChoice.objects.update_or_create(
        user=user, defaults={"address": f"{user.username}@shop.example", "time_zone": "America/Bogota", **values}
    )
    return made


@pytest.fixture
def ann(shop: Client) -> Any:
    """An agent who wants to be told of all that waits for longer than ten minutes."""
    user = staff("ann", shop=Role.AGENT)
    wants(user)
    return user


def waits(client: Client, minutes: float = 20, name: str = "Maria", **more: Any) -> Conversation:
    contact = factories.ContactFactory(client=client, name=name)
    since = {"needs_staff_since": NOW - timedelta(minutes=minutes)}
    return factories.ConversationFactory(client=client, contact=contact, **{**since, **more})


def text_of(mail: Any) -> str:
    content: str = mail.get_content()
    return content


def states_of() -> list[str]:
    return list(StaffMail.objects.order_by("id").values_list("state", flat=True))


def test_what_waits_too_long_is_told_once_with_name_time_and_link(
    server: FakeMailServer, shop: Client, ann: Any
) -> None:
    long, short = waits(shop, 20), waits(shop, 5, name="Later")
    assert mails.tell(NOW) == 1
    [mail] = server.taken
    assert server.recipients == ["ann@shop.example"]
    assert mail["Subject"] == "Shop: 1 conversation waits"
    text = text_of(mail)
    assert "Maria on SMS, since 08:45" in text, "in her own time zone"
    assert f"https://convo.example.org/admin/inbox/{long.pk}/" in text
    assert str(short.pk) not in text
    assert mails.tell(NOW + MINUTE) == 0
    assert mails.tell(NOW + 6 * MINUTE) == 1, "the other one has waited ten minutes now"
    assert str(long.pk) not in text_of(server.taken[1])
    assert mails.tell(NOW + timedelta(hours=3)) == 0


def test_another_wait_of_the_same_conversation_is_told_again(server: FakeMailServer, shop: Client, ann: Any) -> None:
    conversation = waits(shop)
    mails.tell(NOW)
    Conversation.objects.filter(pk=conversation.pk).update(needs_staff_since=NOW)
    assert mails.tell(NOW + 10 * MINUTE) == 1


def test_nothing_that_a_customer_wrote_is_in_it(server: FakeMailServer, door: Any, shop: Client, ann: Any) -> None:
    door.says("My secret is Quagmire", user_id="zeb", phone="+51999000077")
    Conversation.objects.update(needs_staff_since=NOW - 20 * MINUTE, needs_staff_reason="Quagmire")
    waits(shop, name="Call +51999000078 or http://evil.example\r\nBcc: x@evil.example")
    mails.tell(NOW)
    [mail] = server.taken
    whole = mail.as_string()
    for word in ("Quagmire", "51999000077", "evil.example", "zeb"):
        assert word not in whole
    assert text_of(mail).count("A customer on SMS") == 2


@pytest.mark.parametrize(
    ("choice", "told"),
    [
        ({}, {"mine", "assigned", "free"}),
        ({"tells_unassigned": False}, {"mine", "assigned"}),
        ({"tells_mine": False}, {"free"}),
        ({"tells_mine": False, "tells_unassigned": False}, set()),
    ],
)
def test_each_is_told_of_their_own_or_of_what_nobody_has(
    server: FakeMailServer, shop: Client, neighbour: Client, ann: Any, choice: dict[str, bool], told: set[str]
) -> None:
    wants(ann, **choice)
    max_ = staff("max", shop=Role.AGENT)
    mine, theirs, assigned, free = (waits(shop, name=each) for each in ("mine", "theirs", "assigned", "free"))
    waits(neighbour, name="elsewhere")
    waits(shop, name="snoozed", inbound_sequence=0)
    for conversation, user in ((mine, ann), (theirs, max_)):
        takeover.take_over(conversation.pk, actor=Actor("staff", user.username, user.pk), now=NOW)
    owed = {"reply_owed": True, "reply_due_at": NOW, "burst_began_at": NOW - 20 * MINUTE}
    Conversation.objects.filter(pk__in=[mine.pk, theirs.pk]).update(**owed)
    by: dict[str, Any] = {"actor": Actor("staff", "ann"), "now": NOW, "client": shop}
    states.assign(assigned.pk, ann.pk, **by)
    snoozed = Conversation.objects.get(contact__name="snoozed")
    states.snooze(snoozed.pk, timezone.now() + timedelta(days=30), actor=by["actor"], now=timezone.now(), client=shop)
    mails.tell(NOW)
    found = {
        line.split(" on SMS")[0] for mail in server.taken for line in text_of(mail).splitlines() if " on SMS" in line
    }
    assert found == told
    assert free.pk


def test_who_may_not_answer_any_more_is_told_nothing(server: FakeMailServer, shop: Client, ann: Any) -> None:
    waits(shop)
    mails.queue(NOW)
    Membership.objects.update(role=Role.VIEWER)
    assert mails.send(NOW) == 0
    assert states_of() == ["dropped"]
    StaffMail.objects.all().delete()
    mails.tell(NOW)
    ann.is_active = False
    ann.save()
    Membership.objects.update(role=Role.AGENT)
    mails.tell(NOW)
    assert server.taken == []


def test_of_a_client_that_is_switched_off_nothing_is_told(server: FakeMailServer, shop: Client, ann: Any) -> None:
    waits(shop)
    mails.queue(NOW)
    Client.objects.update(is_active=False)
    assert mails.send(NOW) == 0
    assert (server.taken, states_of()) == ([], ["dropped"])


def test_what_waits_no_more_when_it_would_be_sent_is_not_told(server: FakeMailServer, shop: Client, ann: Any) -> None:
    waits(shop)
    mails.queue(NOW)
    Conversation.objects.update(needs_staff_since=None)
    assert mails.send(NOW) == 0
    assert (server.taken, states_of()) == ([], ["dropped"])


def test_without_a_mail_server_nothing_is_queued_or_sent(settings: Any, shop: Client, ann: Any) -> None:
    settings.EMAIL_HOST = ""
    waits(shop)
    assert mails.tell(NOW) == 0
    assert not StaffMail.objects.exists()
    assert not MailMark.objects.exists()


def test_many_are_counted_and_the_first_are_named(server: FakeMailServer, shop: Client, ann: Any) -> None:
    for number in range(23):
        waits(shop, 20 + number, name=f"Customer {number}")
    mails.tell(NOW)
    [mail] = server.taken
    assert mail["Subject"] == "Shop: 23 conversations wait"
    assert "And 3 more." in text_of(mail)
    assert text_of(mail).index("Customer 22") < text_of(mail).index("Customer 3 "), "the longest wait first"


# --- the digest -------------------------------------------------------------------------------------------------------
def at(hour: int, minute: int = 0, day: int = 30) -> datetime:
    """The time of the day in Bogota, which is five hours behind."""
    return datetime(2026, 11, day, hour, minute, tzinfo=UTC) + timedelta(hours=5)


@pytest.fixture
def digest(shop: Client, ann: Any) -> MailChoice:
    """Ann wants a digest at eight, and nothing else."""
    return wants(ann, tells_mine=False, tells_unassigned=False, tells_digest=True, digest_hour=8)


def test_a_digest_comes_once_a_day_at_the_chosen_hour_of_the_users_zone(
    server: FakeMailServer, shop: Client, digest: MailChoice
) -> None:
    waits(shop)
    told = [mails.tell(moment) for moment in (at(7, 59), at(8), at(8, 30), at(9), at(23), at(8, 1, day=31 - 1))]
    assert told == [0, 1, 0, 0, 0, 0]
    assert "This waits for you" in text_of(server.taken[0])
    assert mails.tell(at(8) + timedelta(days=1)) == 1


def test_no_digest_where_nothing_waits_or_the_user_is_there(
    server: FakeMailServer, shop: Client, digest: MailChoice
) -> None:
    waits(shop, needs_staff_since=None)  # the assistant has it
    assert mails.tell(at(8)) == 0
    waits(shop)
    mail_choices.note_here(digest.user_id, at(7, 58))
    assert mails.tell(at(8)) == 0
    assert mails.tell(at(8, 10)) == 1, "gone since"
    assert server.taken[0]["Subject"] == "Shop: 1 conversation waits"


@pytest.mark.django_db(transaction=True)
def test_whoever_reads_the_news_of_the_inbox_is_there(shop: Client, digest: MailChoice) -> None:
    http = signed_in(digest.user)
    http.get(reverse("inbox:live")).close()
    choice = MailChoice.objects.get()
    assert mail_choices.is_here(choice, timezone.now())
    assert not mail_choices.is_here(choice, timezone.now() + 6 * MINUTE)
    before = choice.here_at
    http.get(reverse("inbox:live")).close()
    assert MailChoice.objects.get().here_at == before, "noted once a minute"


# --- a mail server that fails -----------------------------------------------------------------------------------------
def test_a_mail_that_is_not_taken_is_tried_again_with_longer_pauses_and_given_up(
    settings: Any, shop: Client, ann: Any
) -> None:
    with FakeMailServer(lambda _number: "451 Try again later") as busy:
        configure(settings, busy.port)
        waits(shop)
        mails.tell(NOW)
        due, pauses = NOW, []
        while states_of() == ["queued"]:
            mail = StaffMail.objects.get()
            pauses.append(round((mail.due_at - due) / MINUTE))
            assert mails.tell(mail.due_at - MINUTE / 2) == 0
            due = mail.due_at
            mails.tell(due)
        assert pauses == [1, 2, 4, 8, 16]
        assert (states_of(), busy.offered, busy.taken) == (["failed"], 6, [])
        assert StaffMail.objects.get().error == "SMTPDataError 451"
        assert mails.tell(NOW + timedelta(days=1)) == 0


def test_it_gets_through_once_the_server_is_back(settings: Any, shop: Client, ann: Any) -> None:
    with FakeMailServer(lambda number: "451 Later" if number == 1 else "250 OK") as server:
        configure(settings, server.port)
        waits(shop)
        assert [mails.tell(NOW), mails.tell(NOW + MINUTE)] == [0, 1]
        assert len(server.taken) == 1


def test_a_server_that_is_away_costs_one_mail_an_attempt_and_the_others_none(
    settings: Any, shop: Client, neighbour: Client, ann: Any
) -> None:
    configure(settings, 9)  # nobody listens
    Membership.objects.create(user=ann, client=neighbour, role=Role.AGENT)
    waits(shop)
    waits(neighbour)
    assert mails.tell(NOW) == 0
    assert sorted(StaffMail.objects.values_list("attempts", flat=True)) == [0, 1]
    assert states_of() == ["queued", "queued"]


def test_a_recipient_who_is_refused_for_good_is_not_tried_again(server: FakeMailServer, shop: Client, ann: Any) -> None:
    server.refuses = {"ann@shop.example"}
    waits(shop)
    mails.tell(NOW)
    assert states_of() == ["failed"]


def test_an_answer_that_never_comes_is_asked_for_once_more_at_most(settings: Any, shop: Client, ann: Any) -> None:
    with FakeMailServer(lambda _number: None) as silent:
        configure(settings, silent.port)
        waits(shop)
        for minutes in range(0, 200, 10):
            mails.tell(NOW + minutes * MINUTE)
        assert (silent.offered, states_of()) == (2, ["failed"])


def test_a_process_that_dies_between_sending_and_the_mark_repeats_it_once_at_most(
    server: FakeMailServer, shop: Client, ann: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits(shop)
    send_messages = EmailBackend.send_messages

    def and_die(backend: Any, messages: Any) -> None:
        send_messages(backend, messages)
        raise KeyboardInterrupt

    monkeypatch.setattr(EmailBackend, "send_messages", and_die)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            mails.tell(NOW)
        assert mails.tell(NOW + mails.LEASE / 2) == 0, "the claim holds"
        StaffMail.objects.update(lease_until=NOW - MINUTE)
    for minutes in (0, 30, 600):
        mails.tell(NOW + minutes * MINUTE)
    assert (len(server.taken), states_of()) == (2, ["failed"])
    assert len({mail["Message-ID"] for mail in server.taken}) == 1, "a mail program may tell that it is the same"


def test_a_process_that_dies_while_it_queues_has_queued_nothing(
    server: FakeMailServer, shop: Client, ann: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits(shop)

    def die(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(MailMark.objects, "bulk_create", die)
        with pytest.raises(KeyboardInterrupt):
            mails.tell(NOW)
    assert not StaffMail.objects.exists()
    assert mails.tell(NOW) == 1


@pytest.mark.django_db(transaction=True)
def test_two_tasks_at_a_time_tell_it_once(server: FakeMailServer, shop: Client, ann: Any) -> None:
    waits(shop)
    mails.queue(NOW)
    work: list[Callable[[], int]] = [lambda: mails.tell(NOW)] * 2
    assert sorted(together(*work)) == [0, 1]
    assert len(server.taken) == 1


def test_a_mail_that_another_task_has_sent_meanwhile_is_not_claimed(
    server: FakeMailServer, shop: Client, ann: Any
) -> None:
    """Two tasks have listed the mail as due, and one of them was faster."""
    waits(shop)
    assert mails.tell(NOW) == 1
    [sent] = StaffMail.objects.values()
    assert mails.claim(shop.pk, sent["id"], NOW) is None
    assert StaffMail.objects.values().get() == sent, "nor is it written to, where a late claim would call it lost"


def test_old_mails_go_with_their_marks(server: FakeMailServer, shop: Client, ann: Any) -> None:
    waits(shop)
    mails.tell(NOW)
    mails.delete_old(timezone.now() + timedelta(days=29))
    assert StaffMail.objects.count() == MailMark.objects.count() == 1
    mails.delete_old(timezone.now() + timedelta(days=31))
    assert StaffMail.objects.count() == MailMark.objects.count() == 0


# --- ending them ------------------------------------------------------------------------------------------------------
def link_in(mail: Any) -> str:
    header: str = mail["List-Unsubscribe"]
    return header.strip(" <>").removeprefix("https://convo.example.org")


@pytest.mark.parametrize("kind", ["waiting", "digest"])
def test_one_click_ends_that_kind_without_a_sign_in(server: FakeMailServer, shop: Client, ann: Any, kind: str) -> None:
    wants(ann, tells_digest=True, digest_hour=9)
    waits(shop)
    mails.tell(NOW)  # 9:05 in Bogota
    mail = next(each for each in server.taken if ("This waits for you" in text_of(each)) == (kind == "digest"))
    assert mail["List-Unsubscribe-Post"] == "List-Unsubscribe=One-Click"
    link = link_in(mail)
    assert link in text_of(mail).replace("\n", "")
    http = HttpClient(enforce_csrf_checks=True)
    assert http.get(link).status_code == 200
    choice = MailChoice.objects.get()
    assert (choice.tells_mine, choice.tells_unassigned, choice.tells_digest) == (True, True, True), "a GET ends nothing"
    for _ in range(2):
        assert (
            http.post(link, "List-Unsubscribe=One-Click", content_type="application/x-www-form-urlencoded").status_code
            == 200
        )
    choice.refresh_from_db()
    ended = (choice.tells_mine, choice.tells_unassigned, choice.tells_digest)
    assert ended == ((True, True, False) if kind == "digest" else (False, False, True))


@pytest.mark.parametrize("token", ["nonsense", "WzEsIndhaXRpbmciXQ:1:forged", "%00"])
def test_a_forged_link_ends_nothing(shop: Client, ann: Any, token: str) -> None:
    assert HttpClient().post(f"/mail/unsubscribe/{token}").status_code == 404
    assert MailChoice.objects.get().tells_mine


def test_a_mail_that_is_queued_when_the_user_ends_them_is_not_sent(
    server: FakeMailServer, shop: Client, ann: Any
) -> None:
    waits(shop)
    mails.queue(NOW)
    mail_choices.unsubscribe(mail_choices.unsubscribe_link(ann.pk, "waiting").rpartition("/")[2])
    assert mails.send(NOW) == 0
    assert states_of() == ["dropped"]


# --- the page ---------------------------------------------------------------------------------------------------------
VALID = {"after_minutes": "10", "digest_hour": "8", "time_zone": "Europe/Madrid", "address": "ann@shop.example"}


def test_each_chooses_for_themselves(shop: Client) -> None:
    ann, max_ = staff("ann", shop=Role.AGENT), staff("max", shop=Role.AGENT)
    wants(max_)
    assert signed_in(ann).post("/admin/e-mails/", {**VALID, "tells_digest": "on"}).status_code == 302
    choice = MailChoice.objects.get(user=ann)
    assert (choice.tells_digest, choice.tells_mine, choice.digest_hour) == (True, False, 8)
    assert MailChoice.objects.get(user=max_).tells_mine
    assert "E-mails" in signed_in(ann).get("/admin/").content.decode()


@pytest.mark.parametrize(
    ("changed", "field"),
    [
        ({"address": "", "tells_mine": "on"}, "address"),
        ({"address": "nobody"}, "address"),
        ({"address": "a@b.example\nBcc: c@d.example"}, "address"),
        ({"after_minutes": "0"}, "after_minutes"),
        ({"after_minutes": "1441"}, "after_minutes"),
        ({"after_minutes": ""}, "after_minutes"),
        ({"digest_hour": "24"}, "digest_hour"),
        ({"time_zone": "Europe/Atlantis"}, "time_zone"),
    ],
)
def test_nonsense_is_refused(shop: Client, changed: dict[str, str], field: str) -> None:
    http = signed_in(staff("ann", shop=Role.AGENT))
    answer = http.post("/admin/e-mails/", {**VALID, **changed})
    assert set(answer.context["form"].errors) == {field}
    assert not MailChoice.objects.exists()


def test_viewers_and_strangers_have_no_such_page(shop: Client, client: HttpClient) -> None:
    assert signed_in(staff("vera", shop=Role.VIEWER)).get("/admin/e-mails/").status_code == 403
    assert client.get("/admin/e-mails/").status_code == 302


@pytest.mark.parametrize(
    ("language", "subject", "said", "question"),
    [
        ("es", "Shop: 1 conversación espera", "Maria en SMS, desde 08:45", "¿No desea recibir más correos"),
        ("pt-br", "Shop: 1 conversa espera", "Maria em SMS, desde 08:45", "Você não quer mais receber e-mails"),
        ("", "Shop: 1 conversation waits", "Maria on SMS, since 08:45", "Do you want no e-mail any more"),
    ],
)
def test_it_is_in_the_language_of_its_reader(
    server: FakeMailServer, shop: Client, ann: Any, language: str, subject: str, said: str, question: str
) -> None:
    preferences.choose(ann.pk, language=language, time_zone="")
    waits(shop)
    assert mails.tell(NOW) == 1
    [mail] = server.taken
    assert mail["Subject"] == subject
    assert said in text_of(mail)
    link = mail_choices.unsubscribe_link(ann.pk, "waiting").removeprefix("https://convo.example.org")
    assert question in HttpClient().get(link).content.decode()


def test_the_time_zone_that_is_offered_first_is_that_of_ones_settings(shop: Client) -> None:
    http = signed_in(user := staff("bea", shop=Role.AGENT))
    preferences.choose(user.pk, language="es", time_zone="America/Lima")
    page = http.get("/admin/e-mails/").content.decode()
    assert '<option value="America/Lima" selected>' in page
    assert 'href="/admin/me/"' in page
    assert "Avisarme pronto" in page
