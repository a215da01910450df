"""Simulated phone calls: the person calls, speaks or keeps silent, and hangs up; the provider follows our answers."""

from __future__ import annotations

from django.utils.translation import gettext

from channels_out.simulators.contract import Simulator
from channels_out.simulators.people import SimulatedPerson
from conversations.models import ChannelAccount, SimulatedExchange
from conversations.services.core.errors import ConflictError
from conversations.services.simulator import phone
from conversations.services.simulator.accounts import simulator_of
from conversations.services.simulator.exchanges import new_webhook
from conversations.services.simulator.simulator import post, turn_id
from conversations.services.tenants.channel_accounts import as_account

Kind = SimulatedExchange.Kind


def begin(account: ChannelAccount, person: SimulatedPerson) -> SimulatedExchange:
    """Let the person call, and store our answer. Raises ConflictError (`in_a_call`, `no_calls`)."""
    simulator = _voice_simulator(account)
    if phone.current_call(account, person).is_on:
        raise ConflictError(
            gettext("%(person)s is already in a call. Hang up first.") % {"person": person.name}, code="in_a_call"
        )
    call_id = simulator.new_message_id()
    webhook = simulator.call(as_account(account), person, call_id)
    exchange = new_webhook(account, person, Kind.CALL, webhook, message_id=call_id, details={"call": call_id})
    post(exchange)
    return exchange


def hang_up(account: ChannelAccount, person: SimulatedPerson) -> SimulatedExchange:
    """Let the person hang up. Raises ConflictError (`no_call`, `no_calls`)."""
    call = _current_call(account, person)
    webhook = simulator_of(account).hang_up(as_account(account), person, call.call_id)
    exchange = new_webhook(
        account, person, Kind.HANG_UP, webhook, message_id=call.call_id, details={"call": call.call_id}
    )
    post(exchange)
    return exchange


def say_nothing(account: ChannelAccount, person: SimulatedPerson) -> SimulatedExchange:
    """Let the person keep silent until the provider continues the call.

    Raises ConflictError (`nowhere`, `no_call`, `no_calls`).
    """
    call = _current_call(account, person)
    return _continue(account, person, call.call_id, call.silence, note="said nothing")


def continue_call(account: ChannelAccount, person: SimulatedPerson, after: int) -> SimulatedExchange:
    """Let the provider continue the call where our answer sent it.

    after: id of the exchange with that answer; two pages that show one call continue it only once

    Raises ConflictError (`gone_on`) if the call has continued already, or (`no_call`, `no_calls`).
    """
    call = _current_call(account, person)
    if call.goes_on != after:
        raise ConflictError(gettext("The call has already continued."), code="gone_on")
    heard = SimulatedExchange.objects.get(client=account.client_id, pk=after).details["heard"]
    return _continue(account, person, call.call_id, heard["path"])


def _continue(
    account: ChannelAccount, person: SimulatedPerson, call_id: str, path: str, note: str = ""
) -> SimulatedExchange:
    if not path:
        raise ConflictError(gettext("The last answer does not say how the call continues."), code="nowhere")
    webhook = _voice_simulator(account).continuation(as_account(account), person, call_id, path)
    message_id = turn_id(call_id, path)
    exchange = new_webhook(
        account, person, Kind.CONTINUATION, webhook, message_id=message_id, details={"call": call_id}
    )
    post(exchange, note=note)
    return exchange


def _current_call(account: ChannelAccount, person: SimulatedPerson) -> phone.SimulatedCall:
    _voice_simulator(account)
    call = phone.current_call(account, person)
    if not call.call_id:
        raise ConflictError(gettext("%(person)s is not in a call.") % {"person": person.name}, code="no_call")
    return call


def _voice_simulator(account: ChannelAccount) -> Simulator:
    simulator = simulator_of(account)
    if not simulator.is_call:
        raise ConflictError(gettext("This channel has no calls."), code="no_calls")
    return simulator
