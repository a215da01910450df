"""Checks of Meta's accounts: what its answers say of a number or page, in sentences that say what to do.

Source: Meta, WhatsApp Business Management API, "Phone number", "Webhook overrides", "Subscribed apps"; Messenger
Platform, "Page subscribed_apps".
"""

from __future__ import annotations

import re
from typing import Any

from channels_out.contract import Finding
from channels_out.shapes import items, record, text

_PLAIN = re.compile(r"[A-Z_]{1,40}")
_STATES = {
    "PENDING": "register it in WhatsApp Manager.",
    "DISCONNECTED": "register it in WhatsApp Manager, then press Try again.",
    "UNVERIFIED": "verify it in WhatsApp Manager.",
    "MIGRATED": "it has moved to another business account: use that one's credentials.",
    "BANNED": "Meta has banned it: appeal in Business Manager.",
    "RESTRICTED": "Meta restricts it for the quality of its messages: send fewer templates for some days.",
    "RATE_LIMITED": "Meta slows it down: send fewer messages.",
    "FLAGGED": "its quality is low: send fewer templates, or it will be restricted.",
}
_NAMES = {
    "DECLINED": "WhatsApp has declined the number's display name: choose another one in WhatsApp Manager.",
    "EXPIRED": "The approval of the number's display name has expired: request it again in WhatsApp Manager.",
    "NONE": "The number has no display name: enter one in WhatsApp Manager.",
}
_PAGE_FIELDS = ("messages", "messaging_postbacks", "message_deliveries", "message_reads", "message_echoes")

NO_BUSINESS = Finding(
    "Whether Meta delivers the number's messages cannot be asked yet: write the id of the WhatsApp Business account"
    " into Business account, or wait for the first message.",
    is_fine=False,
)


def number_findings(number: Any) -> list[Finding]:
    """Return what the number's record says of its state, its quality and its display name."""
    found = []
    state, quality, name = (_word(number, key) for key in ("status", "quality_rating", "name_status"))
    if state == "CONNECTED":
        found.append(Finding("The number is connected."))
    elif state:
        found.append(
            Finding(f"The number is {_plain(state)}: {_STATES.get(state, 'see WhatsApp Manager.')}", is_fine=False)
        )
    if quality in ("YELLOW", "RED"):
        found.append(
            Finding(f"People's rating of the number is {_plain(quality)}: send fewer templates.", is_fine=False)
        )
    if name in _NAMES:
        found.append(Finding(_NAMES[name], is_fine=False))
    return found


def webhook_findings(number: Any, ours: str) -> list[Finding]:
    """Return whether the number's webhooks go to our address; nothing where Meta does not say where they go."""
    places = record(number, "webhook_configuration")
    set_to = text(places, "phone_number") or text(places, "whatsapp_business_account") or text(places, "application")
    where = "in Meta's developer console, under WhatsApp, Configuration, Webhook"
    return [webhook_finding(set_to, ours, "Meta", where)] if places else []


def webhook_finding(set_to: str, ours: str, provider: str, where: str) -> Finding:
    """Return whether the address that the provider delivers to is ours."""
    if set_to == ours:
        return Finding(f"{provider} delivers to this address.")
    if not set_to:
        return Finding(f"{provider} has no address to deliver to: enter the webhook URL {where}.", is_fine=False)
    return Finding(f"{provider} delivers to another address: replace it by the webhook URL {where}.", is_fine=False)


def subscription_findings(listed: Any, ours: str) -> list[Finding]:
    """Return whether an app hears the business account, and whether its override of the address, if any, is ours."""
    apps = items(listed, "data")
    if not apps:
        return [
            Finding(
                "No app hears the WhatsApp Business account, so that Meta delivers nothing: subscribe your app to it"
                " (POST /<business account>/subscribed_apps with the access token).",
                is_fine=False,
            )
        ]
    overrides = [text(app, "override_callback_uri") for app in apps]
    found = [Finding(f"{_count(len(apps), 'app hears', 'apps hear')} the WhatsApp Business account.")]
    if all(overrides) and ours not in overrides:
        found.append(Finding("Every app has an override of the webhook URL, and none is ours.", is_fine=False))
    return found


def page_findings(listed: Any, ours: str) -> list[Finding]:
    """Return whether an app hears the page, and whether it hears all that is used here."""
    apps = items(listed, "data")
    if not apps:
        sentence = (
            "No app hears the page, so that Meta delivers nothing: add the page to your app's webhooks in Messenger,"
        )
        return [Finding(f"{sentence} API Settings.", is_fine=False)]
    heard = {field for app in apps for field in items(app, "subscribed_fields") if type(field) is str}
    missing = [field for field in _PAGE_FIELDS if field not in heard]
    if missing:
        return [
            Finding(
                f"The page is not subscribed to {', '.join(missing)}: add them in Messenger, API Settings.",
                is_fine=False,
            )
        ]
    return [Finding("The app hears the page.")]


def _word(holder: Any, key: str) -> str:
    found = text(holder, key).upper()
    return found if _PLAIN.fullmatch(found) else ""


def _plain(word: str) -> str:
    return word.replace("_", " ").lower()


def _count(number: int, one: str, several: str) -> str:
    return f"{number} {one if number == 1 else several}"
