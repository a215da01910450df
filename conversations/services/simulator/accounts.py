"""Simulated accounts: channel accounts whose provider is the channel simulator. No real provider knows of them."""

from __future__ import annotations

from collections.abc import Iterable

from django.conf import settings
from django.db import transaction
from django.db.models import Q
from django.utils.translation import gettext, gettext_noop

from channels_out.errors import UnknownAdapterError
from channels_out.kinds import Channel
from channels_out.simulators.contract import Simulator
from channels_out.simulators.registry import SIMULATORS, simulator_for
from conversations.models import ChannelAccount, Client, Scope
from conversations.services.core.errors import ConflictError, UnavailableError
from conversations.services.tenants import api_keys, setup

SANDBOX = "sandbox"
KEY_NAME = "simulator"
TRIES = 10
NAMES = {
    ("whatsapp", "whatsapp"): "WhatsApp",
    ("dialog360", "whatsapp"): gettext_noop("WhatsApp by 360dialog"),
    ("messenger", "messenger"): "Messenger",
    ("plivo", "sms"): gettext_noop("SMS by Plivo"),
    ("plivo", "voice"): gettext_noop("Voice by Plivo"),
    ("orb", "orb"): "Orb",
}


def set_up(client: Client) -> list[ChannelAccount]:
    """Create a simulated account at every provider where the client has none, and make its sandbox playable.

    Returns the created accounts. Raises ConflictError (`client_inactive`) if the client is switched off.
    """
    if not client.is_active:
        raise ConflictError(
            gettext("%(client)s is switched off. Switch it on to receive messages.") % {"client": client},
            code="client_inactive",
        )
    with transaction.atomic():
        Client.objects.select_for_update().get(pk=client.pk)  # of two at once, the second finds everything made
        made = [_new(client, each) for each in SIMULATORS if each.provider != SANDBOX and not _has(client, each)]
        _give_key(client)
    return made


def playable_accounts(clients: Iterable[Client]) -> list[ChannelAccount]:
    """Return the accounts on which staff can play a customer of these clients, by client and order of channels."""
    candidates = Q(is_simulated=True) | Q(provider=SANDBOX)
    found = ChannelAccount.objects.filter(candidates, client__in=clients, is_active=True)
    rows = [account for account in found.select_related("client", "assistant") if _is_playable(account)]
    order = [*NAMES]
    place = {key: number for number, key in enumerate(order)}
    return sorted(rows, key=lambda a: (a.client.name, place.get((a.provider, a.channel), len(order)), a.created_at))


def title(account: ChannelAccount) -> str:
    """Return the account's name in the list from which staff choose one to play."""
    if account.provider == SANDBOX:
        return f"Sandbox ({account.get_channel_display()})"
    if name := NAMES.get((account.provider, account.channel)):
        return gettext(name)
    channel = account.get_channel_display()
    return gettext("%(provider)s on %(channel)s") % {"provider": account.provider, "channel": channel}


def simulator_of(account: ChannelAccount) -> Simulator:
    """Return the simulator of the account's provider. Raises UnknownAdapterError if there is none."""
    return simulator_for(account.provider, account.channel)


def _is_playable(account: ChannelAccount) -> bool:
    try:
        simulator_of(account)
    except UnknownAdapterError:
        return False
    return account.is_simulated or (account.provider == SANDBOX and bool(account.credentials.get("api_key")))


def _has(client: Client, simulator: Simulator) -> bool:
    same = {"provider": simulator.provider, "channel": simulator.channel.value}
    return ChannelAccount.objects.filter(client=client, is_simulated=True, **same).exists()


def _new(client: Client, simulator: Simulator) -> ChannelAccount:
    for _ in range(TRIES):
        address, credentials = simulator.new_account()
        if ChannelAccount.objects.filter(provider=simulator.provider, address=address).exists():
            continue
        account = setup.create_channel_account(
            client,
            channel=simulator.channel,
            provider=simulator.provider,
            address=address,
            credentials=credentials,
            base_url=settings.INTERNAL_BASE_URL,  # never used: as_account() takes the current address
            name=f"Simulated {NAMES.get((simulator.provider, simulator.channel.value), simulator.provider)}",
        )
        account.is_simulated = True
        account.save(update_fields=["is_simulated"])
        return account
    raise UnavailableError(
        gettext("No free address was found for %(provider)s. Try again.") % {"provider": simulator.provider}
    )


def _give_key(client: Client) -> None:
    """Give an API key to each sandbox account that answers the client's own JSON, so that it can be played.

    On a channel where a real account answers, the sandbox gets none: replies to a played message would be sent over the
    real account.
    """
    for channel in (Channel.WHATSAPP, Channel.SMS, Channel.MESSENGER, Channel.ORB):
        ours = ChannelAccount.objects.filter(client=client, channel=channel, is_active=True, is_simulated=False)
        account = ours.order_by("created_at").first()
        if account and account.provider == SANDBOX:
            if not api_keys.find_api_key(account.credentials.get("api_key", "")):
                key = api_keys.create_api_key(client, KEY_NAME, scopes=[Scope.MESSAGES_WRITE])[1]
                account.credentials = {"client_id": str(client.pk), "api_key": key}
                account.save(update_fields=["credentials"])
            return
