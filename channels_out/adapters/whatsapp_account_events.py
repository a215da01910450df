"""Account-level events of WhatsApp: what Meta decides about a business account, its numbers and its templates.

They name the WhatsApp Business account (`entry.id`) and no phone number id. Words of Meta's are shown only if they are
plain names and codes.

Source: Meta, WhatsApp Business Platform, "Webhooks: account_update", "account_alerts", "phone_number_quality_update",
"message_template_status_update".
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from channels_out.events import AccountNotice, TemplateNews
from channels_out.shapes import items, record, text

_PLAIN = re.compile(r"[\w .,:+-]{1,120}")
_NO_ANSWERS = "RESTRICTED_CUSTOMER_INITIATED_MESSAGING"  # nothing can be sent, not even a reply


def read_account_event(field: str, value: Any) -> AccountNotice | None:
    """Return what the change reports of the account, None for other fields."""
    read = _FIELDS.get(field)
    return read(value) if read and type(value) is dict else None


def _word(value: Any, key: str) -> str:
    """Return Meta's word in the field, '' if there is none that can be shown."""
    found = text(value, key).strip()
    return found if _PLAIN.fullmatch(found) else ""


def _noticed(*parts: str) -> str:
    return " ".join(filter(None, parts)).strip()


def _account_update(value: Any) -> AccountNotice:
    event = _word(value, "event")
    ban = _word(record(value, "ban_info"), "waba_ban_state")
    restricted = [_word(each, "restriction_type") for each in items(value, "restriction_info")[:10]]
    if event == "ACCOUNT_DELETED" or ban == "DISABLE":
        return AccountNotice(
            "Meta has disabled the WhatsApp Business account: appeal in Meta's Business Manager.", "broken"
        )
    if ban == "REINSTATE":
        return AccountNotice("Meta has reinstated the WhatsApp Business account.", "ok")
    if ban == "SCHEDULE_FOR_DISABLE":
        date = _word(record(value, "ban_info"), "waba_ban_date")
        return AccountNotice(_noticed("Meta will disable the WhatsApp Business account:", date))
    if event == "ACCOUNT_RESTRICTION":
        sentence = _noticed("Meta restricts the WhatsApp Business account:", ", ".join(filter(None, restricted)))
        return AccountNotice(sentence, "broken" if _NO_ANSWERS in restricted else "")
    if event == "ACCOUNT_VIOLATION":
        kind = _word(record(value, "violation_info"), "violation_type")
        return AccountNotice(_noticed("Meta reports a violation of its policies by the account:", kind))
    return AccountNotice(_noticed("Meta reports of the WhatsApp Business account:", event or "an update"))


def _review(value: Any) -> AccountNotice:
    return AccountNotice(_noticed("Meta's review of the WhatsApp Business account:", _word(value, "decision")))


def _alert(value: Any) -> AccountNotice:
    about = record(value, "alert_info") or value
    words = (_word(about, key) for key in ("alert_severity", "alert_status", "alert_type", "alert_description"))
    return AccountNotice(_noticed("Meta's alert about the account:", *words))


def _quality(value: Any) -> AccountNotice:
    words = _noticed(_word(value, "event"), _word(value, "current_limit"))
    return AccountNotice(_noticed("WhatsApp's rating of the number changed:", words))


def _name(value: Any) -> AccountNotice:
    words = _noticed(_word(value, "decision"), _word(value, "rejection_reason"))
    return AccountNotice(_noticed("WhatsApp's decision on the number's display name:", words))


def _template(value: Any) -> AccountNotice:
    name = _noticed(_word(value, "message_template_name"), _word(value, "message_template_language"))
    event, reason = _word(value, "event"), _word(value, "reason")
    quality, category = _word(value, "new_quality_score"), _word(value, "new_category")
    said = _noticed(event, "" if reason == "NONE" else reason, quality, category)
    sentence = f"WhatsApp reports of the template {name or 'without a name'}: {said or 'an update'}"
    news = TemplateNews(
        _word(value, "message_template_name"),
        _word(value, "message_template_language"),
        _STATUSES.get(event, event) if event not in _NO_STATUS else "",
        quality,
        category,
        "" if reason == "NONE" else reason,
    )
    return AccountNotice(sentence, template=news if news.name and news.language else None)


_STATUSES = {"REINSTATED": "APPROVED"}
_NO_STATUS = {"FLAGGED", "LOCKED", "UNLOCKED"}  # it can be sent as before

_FIELDS: Mapping[str, Callable[[Any], AccountNotice]] = {
    "account_update": _account_update,
    "account_review_update": _review,
    "account_alerts": _alert,
    "phone_number_quality_update": _quality,
    "phone_number_name_update": _name,
    "message_template_status_update": _template,
    "message_template_quality_update": _template,
    "template_category_update": _template,
}
