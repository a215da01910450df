"""A simulated phone call: it begins, goes on by itself where our answer sends it on, and ends."""

from __future__ import annotations

from channels_out.simulators.contract import Simulator
from channels_out.simulators.people import SimulatedPerson
from conversations.models import ChannelAccount, SimulatedExchange
from conversations.services.core.errors import ConflictError
from conversations.services.simulator import phone
from conversations.services.simulator.accounts import simulator_of
from conversations.services.simulator.simulator import new, post, turn_id
from conversations.services.tenants.channel_accounts import as_account

Kind = SimulatedExchange.Kind


def begin(account: ChannelAccount, person: SimulatedPerson) -> SimulatedExchange:
    """The person has called, and our answer was heard. Raises ConflictError where they are in a call."""
    simulator = _of_calls(account)
    if phone.call(account, person).is_on:
        raise ConflictError(f"{person.name} is in a call already.", code="in_a_call")
    call_id = simulator.new_message_id()
    webhook = simulator.call(as_account(account), person, call_id)
    exchange = new(account, person, Kind.CALL, webhook, message_id=call_id, details={"call": call_id})
    post(exchange)
    return exchange


def hang_up(account: ChannelAccount, person: SimulatedPerson) -> SimulatedExchange:
    """The person has hung up. Raises ConflictError where they are in no call."""
    line = _line(account, person)
    webhook = simulator_of(account).hang_up(as_account(account), person, line.call_id)
    exchange = new(account, person, Kind.HANG_UP, webhook, message_id=line.call_id, details={"call": line.call_id})
    post(exchange)
    return exchange


def say_nothing(account: ChannelAccount, person: SimulatedPerson) -> SimulatedExchange:
    """The person has kept silent until the provider went on. Raises ConflictError where nobody waits for words."""
    line = _line(account, person)
    return _continue(account, person, line.call_id, line.silence, note="said nothing")


def go_on(account: ChannelAccount, person: SimulatedPerson, after: int) -> SimulatedExchange:
    """The provider has gone where the answer to the exchange sent it. Raises ConflictError where that is over: two
    pages that show one call let it go on once."""
    line = _line(account, person)
    if line.goes_on != after:
        raise ConflictError("The call has gone on already.", code="gone_on")
    heard = SimulatedExchange.objects.get(pk=after).details["heard"]
    return _continue(account, person, line.call_id, heard["path"])


def _continue(
    account: ChannelAccount, person: SimulatedPerson, call_id: str, path: str, note: str = ""
) -> SimulatedExchange:
    if not path:
        raise ConflictError("The provider has nowhere to go on to.", code="nowhere")
    webhook = _of_calls(account).continuation(as_account(account), person, call_id, path)
    message_id = turn_id(call_id, path)
    exchange = new(account, person, Kind.CONTINUATION, webhook, message_id=message_id, details={"call": call_id})
    post(exchange, note=note)
    return exchange


def _line(account: ChannelAccount, person: SimulatedPerson) -> phone.SimulatedCall:
    _of_calls(account)
    line = phone.call(account, person)
    if not line.call_id:
        raise ConflictError(f"{person.name} is in no call.", code="no_call")
    return line


def _of_calls(account: ChannelAccount) -> Simulator:
    simulator = simulator_of(account)
    if not simulator.is_call:
        raise ConflictError("There are no calls on this channel.", code="no_calls")
    return simulator
