"""The channel simulator: write as a customer on any channel, and see the phone, the conversation and the requests."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeVar
from uuid import UUID

from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect, JsonResponse
from django.shortcuts import get_object_or_404, redirect
from django.template.loader import render_to_string
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.utils import timezone
from django.utils.translation import gettext
from django.views.decorators.http import require_GET, require_POST

from channels_out.simulators.contract import InjectedFault
from channels_out.simulators.people import PEOPLE, SimulatedPerson
from channels_out.simulators.people import person as person_of
from channels_out.simulators.phone_files import TYPES as ENDINGS
from conversations.admin import access, transcript_panel, transcript_view
from conversations.admin.access import Role
from conversations.admin.base import ClientScopedAdmin
from conversations.admin.form_fields import Field, Files, Number, Text, values_of, whole_number
from conversations.models import ChannelAccount, Client, Conversation
from conversations.services.core.errors import DomainError, InvalidError, NotFoundError
from conversations.services.jobs import overdue
from conversations.services.simulator import accounts as simulated_accounts
from conversations.services.simulator import calls, phone, phone_files, provider, simulator
from conversations.services.simulator.phone_files import ChosenFile
from conversations.services.simulator.simulator import Delivery
from conversations.words import lazy as _
from conversations.words import shown

Response = TypeVar("Response", bound=HttpResponse)

TEMPLATES = "admin/simulator"
SECTIONS = ("phone", "controls", "session", "wire")
LONGEST_TEXT = 10_000
MOST_CLIENTS = 200  # on the page that sets accounts up
MOST_ELSEWHERE = 8  # links to other clients' accounts

DELIVERIES = {
    Delivery.ONCE: _("Deliver once"),
    Delivery.TWICE: _("Deliver twice"),
    Delivery.HELD: _("Hold back (deliver later, in any order)"),
    Delivery.LATE: _("Deliver two hours late"),
    Delivery.BADLY_SIGNED: _("Sign with a wrong secret"),
}
KINDS = {"hang_up": _("hang-up"), "question": _("read mark or question")}  # other kinds are shown as they are
IN_A_CALL = (Delivery.ONCE, Delivery.TWICE, Delivery.BADLY_SIGNED)
MISBEHAVIOURS = {
    InjectedFault.THROTTLED: _("429, try again later"),
    InjectedFault.ERROR: "500",
    InjectedFault.SILENT: _("accept, but do not answer"),
    InjectedFault.UNDELIVERABLE: _("refuse the message"),
    InjectedFault.REFUSED: _("refuse the credentials"),
}


class SimulatorPages(ClientScopedAdmin):
    """The pages of the simulator, for managers of the account's client and superusers."""

    def get_urls(self) -> list[URLPattern]:
        """Return the simulator's addresses before Django's, whose last pattern matches everything."""
        wrap = self.admin_site.admin_view
        own = [
            path("simulator/", wrap(require_GET(self.start)), name="simulator"),
            path("simulator/set-up/", wrap(require_POST(self.set_up)), name="simulator_set_up"),
            path("<uuid:pk>/simulator/", wrap(require_GET(self.play)), name="simulator_play"),
            path("<uuid:pk>/simulator/news/", wrap(require_GET(self.news)), name="simulator_news"),
            path("<uuid:pk>/simulator/file/<int:exchange>/", wrap(require_GET(self.file)), name="simulator_file"),
            path("<uuid:pk>/simulator/do/<slug:action>/", wrap(require_POST(self.do)), name="simulator_do"),
        ]
        return [*own, *super().get_urls()]

    def start(self, request: HttpRequest) -> HttpResponse:
        """Redirect to the first simulated account. Without one, or with `?set_up`, show the page that sets them up."""
        clients = self._clients(request)
        accounts = simulated_accounts.playable_accounts(clients)
        if accounts and "set_up" not in request.GET:
            return redirect("admin:simulator_play", accounts[0].pk)
        context = {"title": gettext("Simulator"), "clients": clients[:MOST_CLIENTS]}
        return TemplateResponse(
            request, f"{TEMPLATES}/start.html", {**self.admin_site.each_context(request), **context, "opts": self.opts}
        )

    def set_up(self, request: HttpRequest) -> HttpResponseRedirect:
        """Make the simulated accounts that the client does not have yet."""
        client = get_object_or_404(self._clients(request), pk=_uuid(request.POST.get("client", "")))
        try:
            made = simulated_accounts.set_up(client)
        except DomainError as error:
            self.message_user(request, str(error), messages.ERROR)
            return redirect("admin:simulator")
        for account in made:
            self.record(request, "added", account)
        accounts = simulated_accounts.playable_accounts([client])
        said = gettext("%(client)s has %(accounts)s simulated accounts.") % {
            "client": client,
            "accounts": len(accounts),
        }
        self.message_user(request, said, messages.SUCCESS)
        return redirect("admin:simulator_play", accounts[0].pk) if accounts else redirect("admin:simulator")

    def play(self, request: HttpRequest, pk: UUID) -> HttpResponse:
        """Return the page of one account and one simulated person."""
        account, person = self._account(request, pk), _person(request)
        clients = self._clients(request)
        accounts = simulated_accounts.playable_accounts(clients)
        titled = [(simulated_accounts.title(each), each) for each in accounts if each.client_id == account.client_id]
        context = {
            "title": gettext("Simulator"),
            "subtitle": simulated_accounts.title(account),
            "accounts": titled,
            "elsewhere": _other_clients(accounts, account.client_id)[:MOST_ELSEWHERE],
            "people": [(each, simulated_accounts.simulator_of(account).address_of(each)) for each in PEOPLE],
            **_context(account, person),
        }
        return _no_store(
            TemplateResponse(
                request,
                f"{TEMPLATES}/simulator.html",
                {**self.admin_site.each_context(request), **context, "opts": self.opts},
            )
        )

    def news(self, request: HttpRequest, pk: UUID) -> HttpResponse:
        """Return the sections of the page as HTML, or 204 if they are what `?seen=` names."""
        account, person = self._account(request, pk), _person(request)
        context = _context(account, person)
        sections = {name: render_to_string(f"{TEMPLATES}/_{name}.html", context, request=request) for name in SECTIONS}
        seen = hashlib.sha256(json.dumps(sections, sort_keys=True).encode()).hexdigest()
        if request.GET.get("seen") == seen:
            return _no_store(HttpResponse(status=204))
        return _no_store(JsonResponse({"sections": sections, "seen": seen}))

    def file(self, request: HttpRequest, pk: UUID, exchange: int) -> HttpResponse:
        """Redirect to the file on the phone, by a link that runs out."""
        try:
            return _no_store(redirect(phone_files.address_of(self._account(request, pk), exchange)))
        except NotFoundError:
            raise Http404 from None

    def do(self, request: HttpRequest, pk: UUID, action: str) -> HttpResponse:
        """Run an action and return a sentence: what came of it, or why it was refused."""
        account, person = self._account(request, pk), _person(request)
        if action not in ACTIONS:
            raise Http404
        known = ACTIONS[action]
        try:
            sentence = known.run(account, person, **values_of(known.fields, {**request.POST.dict(), **_files(request)}))
        except NotFoundError as error:
            return _no_store(JsonResponse({"said": str(error)}, status=404))
        except DomainError as error:
            return _no_store(JsonResponse({"said": str(error)}, status=409))
        if known.audit_verb:
            self.record(request, known.audit_verb, account)
        return _no_store(JsonResponse({"said": sentence}))

    def _clients(self, request: HttpRequest) -> Any:
        """Return the clients that the user manages. Raises PermissionDenied if there are none."""
        clients = access.clients_of(request.user, Role.MANAGER)
        if not (request.user.is_active and access.can_somewhere(request.user, Role.MANAGER)):
            raise PermissionDenied
        return clients

    def _account(self, request: HttpRequest, pk: UUID) -> ChannelAccount:
        """Return the account if it can be simulated. Raises Http404 otherwise."""
        for account in simulated_accounts.playable_accounts(self._clients(request).filter(channel_accounts=pk)):
            if account.pk == pk:
                return account
        raise Http404


# --- the actions -----------------------------------------------------------------------------------------------------
def _write(account: ChannelAccount, person: SimulatedPerson, text: str, delivery: str, file: list[Any]) -> str:
    delivery = delivery or Delivery.ONCE
    if delivery not in DELIVERIES:
        raise InvalidError(gettext("There is no such way to deliver."), code="no_such_delivery")
    chosen = next((ChosenFile(each.name or "", each.file, each.size) for each in file), None)
    how: dict[str, Any] = {"delivery": Delivery(delivery), "now": timezone.now()}
    return _outcome(simulator.write_message(account, person, text, file=chosen, **how))


def _deliver(account: ChannelAccount, person: SimulatedPerson, exchange: int) -> str:
    return _outcome(simulator.deliver(account, exchange))


def _gesture(account: ChannelAccount, person: SimulatedPerson, gesture: str, about: str, text: str) -> str:
    return _outcome(simulator.play_gesture(account, person, gesture, about=about, text=text, now=timezone.now()))


def _report(account: ChannelAccount, person: SimulatedPerson, message: str, status: str) -> str:
    return _outcome(simulator.report_receipt(account, message, status, timezone.now()))


def _inject_fault(account: ChannelAccount, person: SimulatedPerson, misbehaviour: str) -> str:
    provider.plan_faults(account, misbehaviour)
    return gettext("The next send fails like that.")


def _clear_faults(account: ChannelAccount, person: SimulatedPerson) -> str:
    provider.clear_faults(account)
    return gettext("The next sends succeed.")


def _call(account: ChannelAccount, person: SimulatedPerson) -> str:
    return _outcome(calls.begin(account, person))


def _hang_up(account: ChannelAccount, person: SimulatedPerson) -> str:
    return _outcome(calls.hang_up(account, person))


def _say_nothing(account: ChannelAccount, person: SimulatedPerson) -> str:
    return _outcome(calls.say_nothing(account, person))


def _go_on(account: ChannelAccount, person: SimulatedPerson, exchange: int) -> str:
    return _outcome(calls.continue_call(account, person, exchange))


@dataclass(frozen=True, slots=True)
class SimulatorAction:
    """One thing to do in the simulator.

    run: does it, with the account, the simulated person and the values of the fields, and returns a sentence.
    audit_verb: the verb with which the audit log records it; empty: it is not recorded.
    """

    run: Callable[..., str]
    fields: tuple[Field, ...] = ()
    audit_verb: str = ""


ACTIONS = {
    "write": SimulatorAction(
        _write,
        (
            Text("text", longest=LONGEST_TEXT, required=False, trimmed=False),
            Text("delivery", required=False),
            Files("file", most=1),
        ),
        audit_verb="played a customer on",
    ),
    "deliver": SimulatorAction(_deliver, (Number("exchange"),)),
    "gesture": SimulatorAction(
        _gesture,
        (
            Text("gesture", required=False),
            Text("about", longest=1_000, required=False),
            Text("text", longest=LONGEST_TEXT, required=False),
        ),
    ),
    "report": SimulatorAction(
        _report, (Text("message", longest=1_000, required=False), Text("status", required=False))
    ),
    "misbehave": SimulatorAction(
        _inject_fault, (Text("misbehaviour", required=False),), audit_verb="laid out a fault on"
    ),
    "behave": SimulatorAction(_clear_faults),
    "call": SimulatorAction(_call, audit_verb="played a customer on"),
    "hang-up": SimulatorAction(_hang_up),
    "say-nothing": SimulatorAction(_say_nothing),
    "go-on": SimulatorAction(_go_on, (Number("exchange"),)),
}


def _outcome(exchange: Any) -> str:
    if exchange.is_held:
        return gettext("The message is held back. Deliver it from the list of requests when you like.")
    if exchange.status is None:
        return shown(exchange.problem) or gettext("There was no answer.")
    return gettext("Convo answered %(status)s.") % {"status": exchange.status}


# --- what is shown ---------------------------------------------------------------------------------------------------
def _context(account: ChannelAccount, person: SimulatedPerson) -> dict[str, Any]:
    played = simulated_accounts.simulator_of(account)
    conversation = phone.newest_conversation(account, person)
    return {
        "account": account,
        "person": person,
        "simulator": played,
        "lines": phone.phone_messages(account, person),
        "call": phone.current_call(account, person) if played.is_call else None,
        "wire": [_shown(each) for each in phone.exchanges(account, person)],
        "faults": [MISBEHAVIOURS[InjectedFault(each)] for each in phone.planned_faults(account)],
        "misbehaviours": [(each.value, MISBEHAVIOURS[each]) for each in played.faults],
        "endings": ",".join(ENDINGS) if played.most_bytes else "",
        "deliveries": [each for each in DELIVERIES.items() if not played.is_call or each[0] in IN_A_CALL],
        "conversation": conversation,
        "messages_page": transcript_view.newest(conversation) if conversation else None,
        "contact": transcript_view.plain_text(str(conversation.contact)) if conversation else "",
        "unattended_since": _unattended_since(conversation) if conversation else None,
    }


def _unattended_since(conversation: Conversation) -> datetime | None:
    return overdue.unattended_since(conversation, transcript_panel.turns_of(conversation), timezone.now())


def _shown(exchange: Any) -> dict[str, Any]:
    """Return a request and its answer for the template. JSON bodies are indented."""
    return {
        "it": exchange,
        "kind": KINDS.get(exchange.kind, exchange.kind),
        "body": _pretty(exchange.body),
        "answer": _pretty(exchange.answer),
        "is_bad": bool(exchange.problem) or (exchange.status or 200) >= 400,
    }


def _pretty(body: str) -> str:
    try:
        found = json.loads(body)
    except ValueError:
        return body
    return json.dumps(found, indent=2, ensure_ascii=False) if isinstance(found, dict | list) else body


def _other_clients(accounts: list[ChannelAccount], except_for: UUID) -> list[tuple[Client, str]]:
    """Return the other clients, each with the address of its first account's page."""
    firsts = {account.client: account for account in reversed(accounts) if account.client_id != except_for}
    return [(client, reverse("admin:simulator_play", args=[account.pk])) for client, account in firsts.items()]


def _person(request: HttpRequest) -> SimulatedPerson:
    found = person_of(whole_number(request.GET.get("person", "")) or 1)
    if found is None:
        raise Http404
    return found


def _files(request: HttpRequest) -> dict[str, list[Any]]:
    return {name: request.FILES.getlist(name) for name in request.FILES}


def _uuid(text: str) -> UUID:
    try:
        return UUID(text)
    except ValueError:
        raise Http404 from None


def _no_store(response: Response) -> Response:
    """Return the response with a header that keeps it out of caches."""
    response["Cache-Control"] = "no-store"
    return response
