"""The channel simulator: play a customer on any channel, and see both sides and the wire between them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
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
from django.views.decorators.http import require_GET, require_POST

from channels_out.simulators.contract import InjectedFault
from channels_out.simulators.people import PEOPLE, SimulatedPerson
from channels_out.simulators.people import person as person_of
from conversations.admin import access, entries
from conversations.admin.access import Role
from conversations.admin.base import Page
from conversations.admin.deeds import text_of, whole
from conversations.models import ChannelAccount, Client, Conversation
from conversations.services.core.errors import DomainError, InvalidError, NotFoundError
from conversations.services.jobs import overdue
from conversations.services.simulator import accounts as simulated_accounts
from conversations.services.simulator import calls, phone, simulator
from conversations.services.simulator.simulator import Delivery

Answer = TypeVar("Answer", bound=HttpResponse)

ROOM = "admin/simulator"
SECTIONS = ("phone", "controls", "session", "wire")
LONGEST_TEXT = 10_000
MOST_CLIENTS = 200  # on the page that sets up
MOST_ELSEWHERE = 8  # links to other clients' accounts

DELIVERIES = {
    Delivery.ONCE: "Deliver once",
    Delivery.TWICE: "Deliver twice",
    Delivery.HELD: "Hold back (to deliver later, in any order)",
    Delivery.LATE: "Deliver two hours late",
    Delivery.BADLY_SIGNED: "Sign with a wrong secret",
}
KINDS = {"hang_up": "hang-up", "question": "read mark or question"}  # others are called what they are
IN_A_CALL = (Delivery.ONCE, Delivery.TWICE, Delivery.BADLY_SIGNED)
MISBEHAVIOURS = {
    InjectedFault.THROTTLED: "429, try again later",
    InjectedFault.ERROR: "500",
    InjectedFault.SILENT: "take it, answer nothing",
    InjectedFault.UNDELIVERABLE: "refuse the message",
    InjectedFault.REFUSED: "refuse the credentials",
}


class SimulatorPages(Page):
    """Pages beside those of the accounts, for managers of an account's client and superusers."""

    def get_urls(self) -> list[URLPattern]:
        """The simulator's own, before Django's, whose last one takes everything."""
        wrap = self.admin_site.admin_view
        own = [
            path("simulator/", wrap(require_GET(self.start)), name="simulator"),
            path("simulator/set-up/", wrap(require_POST(self.set_up)), name="simulator_set_up"),
            path("<uuid:pk>/simulator/", wrap(require_GET(self.play)), name="simulator_play"),
            path("<uuid:pk>/simulator/news/", wrap(require_GET(self.news)), name="simulator_news"),
            path("<uuid:pk>/simulator/do/<slug:deed>/", wrap(require_POST(self.do)), name="simulator_do"),
        ]
        return [*own, *super().get_urls()]

    def start(self, request: HttpRequest) -> HttpResponse:
        """The first account that can be played; where there is none, or `?set_up`, the page that makes some."""
        clients = self._clients(request)
        accounts = simulated_accounts.playable(clients)
        if accounts and "set_up" not in request.GET:
            return redirect("admin:simulator_play", accounts[0].pk)
        context = {"title": "Simulator", "clients": clients[:MOST_CLIENTS]}
        return TemplateResponse(
            request, f"{ROOM}/start.html", {**self.admin_site.each_context(request), **context, "opts": self.opts}
        )

    def set_up(self, request: HttpRequest) -> HttpResponseRedirect:
        """Make what is missing of a client's simulated accounts."""
        client = get_object_or_404(self._clients(request), pk=_uuid(request.POST.get("client", "")))
        try:
            made = simulated_accounts.set_up(client)
        except DomainError as error:
            self.message_user(request, str(error), messages.ERROR)
            return redirect("admin:simulator")
        for account in made:
            self.note(request, "added", account)
        accounts = simulated_accounts.playable([client])
        said = f"{client} has {len(accounts)} accounts to play on."
        self.message_user(request, said, messages.SUCCESS)
        return redirect("admin:simulator_play", accounts[0].pk) if accounts else redirect("admin:simulator")

    def play(self, request: HttpRequest, pk: UUID) -> HttpResponse:
        """The page of one account, for one person."""
        account, person = self._account(request, pk), _person(request)
        clients = self._clients(request)
        accounts = simulated_accounts.playable(clients)
        titled = [(simulated_accounts.title(each), each) for each in accounts if each.client_id == account.client_id]
        context = {
            "title": "Simulator",
            "subtitle": simulated_accounts.title(account),
            "accounts": titled,
            "elsewhere": _first_of_each(accounts, account.client_id)[:MOST_ELSEWHERE],
            "people": [(each, simulated_accounts.simulator_of(account).address_of(each)) for each in PEOPLE],
            **_context(account, person),
        }
        return _no_store(
            TemplateResponse(
                request,
                f"{ROOM}/simulator.html",
                {**self.admin_site.each_context(request), **context, "opts": self.opts},
            )
        )

    def news(self, request: HttpRequest, pk: UUID) -> HttpResponse:
        """What the page shows now; 204 where that is what `?seen=` had already."""
        account, person = self._account(request, pk), _person(request)
        context = _context(account, person)
        sections = {name: render_to_string(f"{ROOM}/_{name}.html", context, request=request) for name in SECTIONS}
        seen = hashlib.sha256(json.dumps(sections, sort_keys=True).encode()).hexdigest()
        if request.GET.get("seen") == seen:
            return _no_store(HttpResponse(status=204))
        return _no_store(JsonResponse({"sections": sections, "seen": seen}))

    def do(self, request: HttpRequest, pk: UUID, deed: str) -> HttpResponse:
        """Do what a form asks for, and say in a sentence what came of it, or why not."""
        account, person = self._account(request, pk), _person(request)
        if deed not in DEEDS:
            raise Http404
        try:
            sentence = DEEDS[deed](request, account, person)
        except NotFoundError as error:
            return _no_store(JsonResponse({"said": str(error)}, status=404))
        except DomainError as error:
            return _no_store(JsonResponse({"said": str(error)}, status=409))
        if deed in NOTED:
            self.note(request, NOTED[deed], account)
        return _no_store(JsonResponse({"said": sentence}))

    def _clients(self, request: HttpRequest) -> Any:
        """Those that the user manages. Raises PermissionDenied where there are none."""
        clients = access.clients_of(request.user, Role.MANAGER)
        if not (request.user.is_active and access.can_somewhere(request.user, Role.MANAGER)):
            raise PermissionDenied
        return clients

    def _account(self, request: HttpRequest, pk: UUID) -> ChannelAccount:
        """The account, where it can be played; any other is as good as none."""
        for account in simulated_accounts.playable(self._clients(request).filter(channel_accounts=pk)):
            if account.pk == pk:
                return account
        raise Http404


# --- what one does ---------------------------------------------------------------------------------------------------
def write(request: HttpRequest, account: ChannelAccount, person: SimulatedPerson) -> str:
    """Say something as the person."""
    text = text_of(request, "text", longest=LONGEST_TEXT)
    delivery = request.POST.get("delivery", Delivery.ONCE)
    if delivery not in DELIVERIES:
        raise InvalidError("There is no such way to deliver.", code="no_such_delivery")
    exchange = simulator.write(account, person, text, delivery=Delivery(delivery), now=timezone.now())
    return _outcome(exchange)


def deliver(request: HttpRequest, account: ChannelAccount, person: SimulatedPerson) -> str:
    """Deliver what was held back, or once more what was delivered."""
    return _outcome(simulator.deliver(account, whole(request.POST.get("exchange", ""))))


def report(request: HttpRequest, account: ChannelAccount, person: SimulatedPerson) -> str:
    """Report what became of a message."""
    message_id, status = request.POST.get("message", ""), request.POST.get("status", "")
    return _outcome(simulator.receipt(account, message_id, status, timezone.now()))


def misbehave(request: HttpRequest, account: ChannelAccount, person: SimulatedPerson) -> str:
    """Lay out how the next send goes wrong."""
    simulator.misbehave(account, request.POST.get("misbehaviour", ""))
    return "The next send goes wrong like that."


def behave(request: HttpRequest, account: ChannelAccount, person: SimulatedPerson) -> str:
    """Nothing goes wrong any more."""
    simulator.behave(account)
    return "The next sends go well."


def call(request: HttpRequest, account: ChannelAccount, person: SimulatedPerson) -> str:
    """Call as the person."""
    return _outcome(calls.begin(account, person))


def hang_up(request: HttpRequest, account: ChannelAccount, person: SimulatedPerson) -> str:
    """Hang up as the person."""
    return _outcome(calls.hang_up(account, person))


def say_nothing(request: HttpRequest, account: ChannelAccount, person: SimulatedPerson) -> str:
    """Keep silent as the person."""
    return _outcome(calls.say_nothing(account, person))


def go_on(request: HttpRequest, account: ChannelAccount, person: SimulatedPerson) -> str:
    """Let the provider go where it was sent on."""
    return _outcome(calls.go_on(account, person, whole(request.POST.get("exchange", ""))))


DEEDS: dict[str, Callable[[HttpRequest, ChannelAccount, SimulatedPerson], str]] = {
    "write": write,
    "deliver": deliver,
    "report": report,
    "misbehave": misbehave,
    "behave": behave,
    "call": call,
    "hang-up": hang_up,
    "say-nothing": say_nothing,
    "go-on": go_on,
}
NOTED = {"write": "played a customer on", "call": "played a customer on", "misbehave": "laid out a fault on"}


def _outcome(exchange: Any) -> str:
    if exchange.is_held:
        return "Held back: deliver it from the wire, when you like."
    if exchange.status is None:
        return exchange.problem or "No answer came."
    return f"Convo answered {exchange.status}."


# --- what is shown ---------------------------------------------------------------------------------------------------
def _context(account: ChannelAccount, person: SimulatedPerson) -> dict[str, Any]:
    played = simulated_accounts.simulator_of(account)
    conversation = phone.session(account, person)
    return {
        "account": account,
        "person": person,
        "simulator": played,
        "lines": phone.lines(account, person),
        "call": phone.call(account, person) if played.is_call else None,
        "wire": [_shown(each) for each in phone.wire(account, person)],
        "faults": [MISBEHAVIOURS[InjectedFault(each)] for each in phone.faults(account)],
        "misbehaviours": [(each.value, MISBEHAVIOURS[each]) for each in played.faults],
        "deliveries": [each for each in DELIVERIES.items() if not played.is_call or each[0] in IN_A_CALL],
        "conversation": conversation,
        "stretch": entries.newest(conversation) if conversation else None,
        "contact": entries.plainly(str(conversation.contact)) if conversation else "",
        "unattended_since": _unattended_since(conversation) if conversation else None,
    }


def _unattended_since(conversation: Conversation) -> datetime | None:
    return overdue.unattended_since(conversation, entries.turns_of(conversation), timezone.now())


def _shown(exchange: Any) -> dict[str, Any]:
    """An exchange of the wire, with bodies that are JSON laid out to be read."""
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


def _first_of_each(accounts: list[ChannelAccount], but: UUID) -> list[tuple[Client, str]]:
    """The other clients, each with the address of its first account."""
    firsts = {account.client: account for account in reversed(accounts) if account.client_id != but}
    return [(client, reverse("admin:simulator_play", args=[account.pk])) for client, account in firsts.items()]


def _person(request: HttpRequest) -> SimulatedPerson:
    found = person_of(whole(request.GET.get("person", "")) or 1)
    if found is None:
        raise Http404
    return found


def _uuid(text: str) -> UUID:
    try:
        return UUID(text)
    except ValueError:
        raise Http404 from None


def _no_store(response: Answer) -> Answer:
    """What people said stays out of caches."""
    response["Cache-Control"] = "no-store"
    return response
