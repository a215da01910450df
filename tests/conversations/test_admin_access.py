"""Who sees and does what in the back office: roles by Membership, and nothing of another client's.

The pages are found, not listed: a page that is added later is under the same tests.
"""

from __future__ import annotations

import html
import re
from typing import Any
from uuid import uuid4

import pytest
from django.apps import apps
from django.contrib import admin
from django.contrib.auth import get_user_model
from django.db.models import ForeignKey
from django.test import Client as HttpClient
from django.urls import URLPattern, reverse
from django.utils import timezone

from conversations.admin import access
from conversations.admin.access import Role
from conversations.admin.base import ClientScopedAdmin
from conversations.admin.conversation_actions import ACTIONS
from conversations.admin.simulator import ACTIONS as SIMULATOR_ACTIONS
from conversations.models import (
    Assistant,
    Attachment,
    BulkJob,
    CannedReply,
    ChannelAccount,
    Chunk,
    Client,
    Contact,
    ContactIdentity,
    Conversation,
    Erasure,
    Feedback,
    InboundEvent,
    Label,
    Membership,
    MessageTemplate,
    MessageTombstone,
    ModelProvider,
    Proposal,
    RefusedWebhooks,
    RetentionReport,
    Survey,
    Team,
    ToolCall,
    Turn,
)
from conversations.services.contacts import duplicates
from conversations.services.core import audit_log
from conversations.services.events import endpoints
from conversations.services.events.numbering import number_all
from conversations.services.export.transcripts import FORMATS
from conversations.services.staff_actions import seed_helpers
from conversations.services.tenants import api_keys, tools
from tests.conftest import Door, reply_to_all, send_all
from tests.conversations.staff import signed_in, staff, superuser
from tests.routes import ALL_ROUTES, Route

pytestmark = pytest.mark.django_db

SECRET_WORD = "Zanzibar"  # in everything that can be read of the neighbour's
PAGES = [
    page
    for page in admin.site._registry.values()
    if isinstance(page, ClientScopedAdmin) and page.client_path and page.view_role
]
ROLES = [Role.VIEWER, Role.AGENT, Role.MANAGER]


def full_house(client: Client, word: str) -> None:
    """The client has a row in every table, and the word is in all that can be read of it."""
    client.name = f"{client.name} {word}"
    client.save(update_fields=["name"])
    key = api_keys.create_api_key(client, word)[1]
    Assistant.objects.filter(client=client).update(name=word, system_prompt=word)
    ChannelAccount.objects.filter(client=client).update(name=word)
    user = get_user_model().objects.create_user(f"user-{word}", is_staff=True)
    Membership.objects.create(client=client, user=user, role=Role.VIEWER)
    audit_log.record(user, "added", client, client.pk)
    InboundEvent.objects.create(client=client, provider="sandbox", kind=word, reason="unknown_type")
    MessageTombstone.objects.create(client=client, dedupe_key=uuid4(), expires_at=timezone.now())
    account = ChannelAccount.objects.filter(client=client).first()
    RefusedWebhooks.objects.create(
        channel="sms", provider=word, channel_account=account, day=timezone.now(), last_at=timezone.now(), count=1
    )
    MessageTemplate.objects.create(
        client=client, channel_account=account, name=word, language="en", status="APPROVED", seen_at=timezone.now()
    )
    Erasure.objects.create(client=client, asked_by_name=word)
    RetentionReport.objects.create(client=client, by=word)
    ModelProvider.objects.create(client=client, name=word, kind="openai", credentials={"api_key": "sk-1"})
    door = Door(client, key)
    session = door.says(word, user_id=word, name=word)["conversation_id"]
    seed_helpers.add_step(session, word)
    ContactIdentity.objects.get_or_create(
        client=client,
        channel="sms",
        address=word,
        kind="user",
        contact=Contact.objects.get(client=client, user_id=word),
    )
    other = Contact.objects.create(client=client, user_id=f"other-{word}")
    duplicates.note(other, Contact.objects.get(client=client, user_id=word).pk, "same_phone", channel="sms")
    reply_to_all()
    send_all()
    reply = Chunk.objects.filter(conversation=session, role="ai").first()
    Feedback.objects.create(chunk=reply, conversation_id=session, rating="up", note=word)
    Proposal.objects.create(client=client, conversation_id=session, text=word, inbound_sequence=1)
    tool, _ = tools.create_tool(client, f"tool-{word}", url=f"https://{word}.example/", description=word)
    tools.create_mcp_server(client, word[:20], url=f"https://{word}.example/mcp")
    CannedReply.objects.create(client=client, shortcut=word, text=word)
    Survey.objects.get_or_create(client=client, channel="sms", defaults={"text": word})  # one for each channel
    Label.objects.create(client=client, name=word)
    Team.objects.create(client=client, name=word)
    endpoints.create_endpoint(client, f"https://{word}.example/events", kinds=["message.in"])
    door.says(word, user_id=word)
    number_all()
    ToolCall.objects.create(client=client, conversation_id=session, tool=tool, name=tool.name, status="unknown")


@pytest.fixture
def houses(shop: Client, neighbour: Client) -> tuple[Client, Client]:
    """Two clients with rows everywhere."""
    full_house(shop, "Hometown")
    full_house(neighbour, SECRET_WORD)
    return shop, neighbour


def rows_of(page: ClientScopedAdmin, client: Client) -> list[Any]:
    """The client's rows of the page's table."""
    return list(page.model._default_manager.filter(**{page.client_path: client.pk}))


def path_of(page: ClientScopedAdmin, name: str, *args: Any) -> str:
    return reverse(f"admin:{page.opts.app_label}_{page.opts.model_name}_{name}", args=args)


def said(answer: Any, *ids: Any) -> tuple[int, str, str]:
    """The answer without what differs from request to request: the ids that were asked for, and tokens."""
    text = answer.content.decode()
    for pk in ids:
        text = text.replace(html.escape(str(pk)), "ID")
    text = re.sub(r'(csrfmiddlewaretoken" value=|nonce=)"[^"]*"', "", text)
    return answer.status_code, answer.headers.get("Location", ""), text


def absent(page: ClientScopedAdmin) -> Any:
    """An id that no row has."""
    return uuid4() if page.opts.pk.get_internal_type() == "UUIDField" else 987_654_321


def addresses_of_row(page: ClientScopedAdmin) -> list[str]:
    """The names of all addresses of the page that name a row: its forms, its history, its actions."""
    patterns = [each for each in page.get_urls() if isinstance(each, URLPattern) and each.name]
    return [each.name for each in patterns if "object_id" in each.pattern.regex.groupindex]


def test_there_are_pages_to_be_tested():
    assert {page.model for page in PAGES} >= {Client, Membership, Assistant, ChannelAccount}
    others = {page.opts.label for page in admin.site._registry.values() if page not in PAGES}
    not_scoped = [page for page in admin.site._registry.values() if not isinstance(page, ClientScopedAdmin)]
    assert not_scoped == []
    assert {label.split(".")[0] for label in others} <= {"auth", "django_q", "socialaccount", "conversations"}


def test_a_table_that_names_a_client_is_scoped_by_it():
    for model in apps.get_app_config("conversations").get_models():
        page = admin.site._registry.get(model)
        names = {field.name for field in model._meta.get_fields() if isinstance(field, ForeignKey)}
        if page and names & {"client", "conversation"}:
            assert page.client_path, f"{model} is a client's"


@pytest.mark.parametrize("role", ROLES)
def test_a_member_reads_the_clients_own_rows_and_no_others(houses, role):
    shop, _ = houses
    http = signed_in(staff("ann", shop=role))
    for page in PAGES:
        answer = http.get(path_of(page, "changelist"))
        assert answer.status_code == 200, page
        assert rows_of(page, shop), f"{page} was not tested: there is no row"
        assert SECRET_WORD not in answer.content.decode(), page
        shown = set(answer.context["cl"].queryset.values_list("pk", flat=True))
        assert shown == {row.pk for row in rows_of(page, shop)}, page
        for row in rows_of(page, shop)[:1]:
            form = http.get(path_of(page, "change", row.pk), follow=True)
            assert form.status_code == 200, page
            assert SECRET_WORD not in form.content.decode(), page


@pytest.mark.parametrize("role", ROLES)
def test_another_clients_row_does_not_exist(houses, role):
    _, neighbour = houses
    http = signed_in(staff("ann", shop=role))
    for page in PAGES:
        theirs, nobodys = rows_of(page, neighbour)[0].pk, absent(page)
        for name in addresses_of_row(page):
            for method in (http.get, http.post):
                answers = [
                    said(method(reverse(f"admin:{name}", args=[pk])), theirs, nobodys) for pk in (theirs, nobodys)
                ]
                assert answers[0] == answers[1], (name, method)
                assert answers[0][0] in {302, 403, 404, 405}, name
                http.cookies.pop("messages", None)  # which the next page would show


def routes_of_sessions() -> list[Route]:
    """The back office's addresses beside those that Django makes for a row: they are found, not listed."""
    return [
        route
        for route in ALL_ROUTES
        if route.pattern.startswith("/admin/conversations/") and {"pk", "kind"} & set(route.parameters)
    ]


def test_no_address_of_the_back_office_tells_another_client_s_id_from_one_that_never_was(houses):
    _, neighbour = houses
    session = Conversation.objects.filter(client=neighbour).first()
    turn = Turn.objects.filter(conversation=session).first()
    user = get_user_model().objects.get(username=f"user-{SECRET_WORD}")
    job = BulkJob.objects.create(kind="close", user=user, sessions=[session.pk])
    words = {"action": [*ACTIONS, *SIMULATOR_ACTIONS], "form": FORMATS, "kind": BulkJob.Kind.values, "position": [3]}
    words |= {"check": ["text"], "exchange": [1]}
    file = Attachment.objects.create(conversation=session, number=0, kind="image")
    words["attachment_id"] = [str(file.pk), str(uuid4())]
    http, routes = signed_in(staff("ann", shop=Role.MANAGER)), routes_of_sessions()
    assert len(routes) >= 12
    for route in routes:
        missing = set(route.parameters) - {"pk", "turn_pk", *words}
        assert not missing, f"{route}: say what its {missing} may be"
        account = session.channel_account_id
        theirs = account if "channelaccount" in route.pattern else job.pk if "jobs" in route.pattern else session.pk
        for word in words.get(next((name for name in route.parameters if name in words), ""), [""]):
            for method in (http.get, http.post):
                answers = [
                    said(
                        method(f"{route.path(dict.fromkeys(words, word) | {'pk': pk, 'turn_pk': turn.pk})}?ids={pk}"),
                        pk,
                    )
                    for pk in (theirs, uuid4())
                ]
                assert answers[0] == answers[1], (route, word, method)
                http.cookies.pop("messages", None)
    job.refresh_from_db()
    assert (job.handled, Conversation.objects.get(pk=session.pk).status) == (0, "active")


@pytest.mark.parametrize("role", ROLES)
def test_actions_do_not_reach_another_clients_rows(houses, role):
    _, neighbour = houses
    http = signed_in(staff("ann", shop=role))
    for page in PAGES:
        theirs = rows_of(page, neighbour)[0]
        before = page.model._default_manager.filter(pk=theirs.pk).values().get()
        page_of_list = http.get(path_of(page, "changelist"))
        form = page_of_list.context.get("action_form")
        names = [name for name, _ in form.fields["action"].choices if name] if form else []
        for name in {*names, "delete_selected"}:
            http.post(path_of(page, "changelist"), {"action": name, "_selected_action": str(theirs.pk), "post": "yes"})
        assert page.model._default_manager.filter(pk=theirs.pk).values().get() == before, page


def test_autocompletes_offer_the_clients_own_rows_only(houses):
    http = signed_in(staff("ann", shop=Role.MANAGER))
    asked = 0
    for page in PAGES:
        for field in page.model._meta.get_fields():
            if not isinstance(field, ForeignKey):
                continue
            wanted = {"app_label": page.opts.app_label, "model_name": page.opts.model_name, "field_name": field.name}
            for term in ("", SECRET_WORD, "user", "neighbour"):
                answer = http.get(reverse("admin:autocomplete"), {**wanted, "term": term})
                assert SECRET_WORD not in answer.content.decode(), (page, field)
                assert answer.status_code in {200, 403, 404}
                asked += 1
    assert asked


def test_choices_and_filters_name_nobody_elses(houses):
    http = signed_in(staff("ann", shop=Role.MANAGER))
    for page in PAGES:
        assert SECRET_WORD not in http.get(path_of(page, "changelist")).content.decode(), page
        if page.search_fields:
            found = http.get(path_of(page, "changelist"), {"q": SECRET_WORD})
            assert list(found.context["cl"].result_list) == [], page
        form = http.get(path_of(page, "add") + "?kind=whatsapp:whatsapp")
        assert form.status_code in {200, 403}
        assert SECRET_WORD not in form.content.decode(), page
    found = http.get(reverse("admin:search"), {"s": SECRET_WORD.lower(), "extended": 1})
    assert SECRET_WORD not in found.content.decode()
    assert SECRET_WORD not in http.get(reverse("admin:index")).content.decode()


def test_nothing_of_another_client_can_be_chosen(houses):
    shop, neighbour = houses
    http = signed_in(staff("ann", shop=Role.MANAGER))
    theirs = Assistant.objects.filter(client=neighbour).get()
    answer = http.post(
        reverse("admin:conversations_assistant_add"),
        {"client": str(neighbour.pk), "name": "Spy", "key": "spy", "engine": "offline", "history_length": 1},
    )
    assert "Select a valid choice" in answer.content.decode()
    account = ChannelAccount.objects.filter(client=shop).first()
    answer = http.post(
        reverse("admin:conversations_channelaccount_change", args=[account.pk]),
        {"name": "x", "address": account.address, "assistant": str(theirs.pk), "is_active": "on"},
    )
    assert "Select a valid choice" in answer.content.decode()
    assert not Assistant.objects.filter(name="Spy").exists()


@pytest.mark.parametrize("role", [Role.VIEWER, Role.AGENT])
def test_who_is_no_manager_changes_nothing_of_the_set_up(houses, role):
    shop, _ = houses
    http = signed_in(staff("ann", shop=role))
    for page in PAGES:
        row = rows_of(page, shop)[0]
        before = page.model._default_manager.filter(pk=row.pk).values().get()
        for name in ("add", "change", "delete"):
            path = path_of(page, name, *([] if name == "add" else [row.pk]))
            answer = http.post(path, {"post": "yes", "name": "x", "role": "manager"})
            assert answer.status_code in {302, 403}, path
        assert page.model._default_manager.filter(pk=row.pk).values().get() == before, page


def test_a_manager_here_is_a_viewer_there(houses):
    _, neighbour = houses
    http = signed_in(staff("ann", shop=Role.MANAGER, neighbour=Role.VIEWER))
    theirs = Assistant.objects.get(client=neighbour)
    path = reverse("admin:conversations_assistant_change", args=[theirs.pk])
    assert http.get(path).status_code == 200
    assert http.post(path, {"name": "Spy"}).status_code == 403
    assert http.post(path.replace("change", "default")).status_code == 403
    form = http.get(reverse("admin:conversations_assistant_add"))
    assert SECRET_WORD not in form.content.decode()


def test_only_superusers_meet_users_groups_and_the_queue(houses):
    user = staff("ann", shop=Role.MANAGER)
    user.user_permissions.set(user.user_permissions.model.objects.all())  # Django's permissions play no part
    http, boss = signed_in(user), signed_in(superuser())
    for page in admin.site._registry.values():
        if page not in PAGES:
            assert http.get(path_of(page, "changelist")).status_code == 403, page
            assert http.get(path_of(page, "add")).status_code == 403, page
            assert boss.get(path_of(page, "changelist")).status_code == 200, page
    victim = superuser("other-boss")
    for name in ("auth_user_change", "auth_user_password_change", "auth_user_history", "auth_user_delete"):
        for ask in (http.get, http.post):
            assert ask(reverse(f"admin:{name}", args=[victim.pk])).status_code in {302, 403}
    assert not get_user_model().objects.get(username="ann").is_superuser


def test_a_stranger_sees_nothing(houses):
    http = signed_in(staff("stranger"))
    for page in PAGES:
        assert http.get(path_of(page, "changelist")).status_code == 403, page
    assert http.get(reverse("admin:index")).status_code == 200
    nobody = HttpClient()
    for page in PAGES:
        assert nobody.get(path_of(page, "changelist")).status_code == 302, page


def test_a_role_holds_what_is_below_it_and_only_in_its_client(shop, neighbour):
    user = staff("ann", shop=Role.AGENT, neighbour=Role.VIEWER)
    assert set(access.clients_of(user)) == {shop, neighbour}
    assert set(access.clients_of(user, Role.AGENT)) == {shop}
    assert access.role_in(user, shop) == "agent"
    assert access.can(user, Role.VIEWER, shop)
    assert access.can(user, Role.AGENT, shop)
    assert not access.can(user, Role.MANAGER, shop)
    assert not access.can(user, Role.AGENT, neighbour)


def test_a_superuser_sees_all_and_a_stranger_nothing(shop, neighbour):
    boss = superuser()
    assert set(access.clients_of(boss)) == {shop, neighbour}
    assert access.role_in(boss, shop) == "manager"
    stranger = staff("stranger")
    assert not access.clients_of(stranger)
    assert access.role_in(stranger, shop) is None


def test_who_is_switched_off_has_no_role(shop):
    user = staff("ann", shop=Role.MANAGER)
    user.is_active = False
    assert access.role_in(user, shop) is None
    assert not access.clients_of(user)
