"""The payloads of Plivo: its forms, and their signature.

Each function returns the fields of a form. `signed` returns the bytes and headers to post them with.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
from collections.abc import Mapping, Sequence
from urllib.parse import parse_qsl, urlencode
from uuid import uuid4

FORM = "application/x-www-form-urlencoded"

Form = dict[str, str]


def new_uuid() -> str:
    """Return a new id of a message or call."""
    return str(uuid4())


# --- SMS --------------------------------------------------------------------------------------------------------------
def sms(
    *, sender: str, to: str, text: str, message_uuid: str = "", intent: str = "", media: Sequence[str] = ()
) -> Form:
    """Return a person's SMS, or an MMS if there are media."""
    body = {"Body": text, "Type": "mms", "MediaCount": str(len(media))} if media else {"Text": text, "Type": "sms"}
    return {
        "From": sender,
        "MessageIntent": intent,
        "MessageUUID": message_uuid or new_uuid(),
        "PowerpackUUID": "",
        "To": to,
        "TotalAmount": "0",
        "TotalRate": "0",
        "Units": "1",
        **body,
        **{f"Media{number}": url for number, url in enumerate(media, start=1)},
    }


def status(*, sender: str, to: str, message_uuid: str, status: str, sequence: int, error_code: str = "") -> Form:
    """Return the status of a message of ours: `sender` is our number."""
    return {
        "ErrorCode": error_code,
        "From": sender,
        "MCC": "250",
        "MNC": "99",
        "MessageUUID": message_uuid,
        "ParentMessageUUID": message_uuid,
        "PartInfo": "1 of 1",
        "Sequence": str(sequence),
        "Status": status,
        "To": to,
        "Type": "sms",
        "Units": "1",
    }


# --- voice ------------------------------------------------------------------------------------------------------------
def call(*, caller: str, to: str, call_uuid: str, status: str = "in-progress") -> Form:
    """Return a request for instructions: the answer URL, and every redirect."""
    return {
        "CallStatus": status,
        "CallUUID": call_uuid,
        "Direction": "inbound",
        "Event": "StartApp",
        "From": caller,
        "To": to,
    }


def speech(*, caller: str, to: str, call_uuid: str, words: str, confidence: float | str = 0.9) -> Form:
    """Return the request with the caller's words."""
    return {
        **call(caller=caller, to=to, call_uuid=call_uuid),
        "BilledAmount": "0.02",
        "Digits": "",
        "Event": "Speech",
        "InputType": "speech",
        "Speech": words,
        "SpeechConfidenceScore": str(confidence),
    }


def keys(*, caller: str, to: str, call_uuid: str, digits: str) -> Form:
    """Return the request with the keys that the caller pressed."""
    return {
        **call(caller=caller, to=to, call_uuid=call_uuid),
        "Digits": digits,
        "Event": "Digits",
        "InputType": "dtmf",
        "Speech": "",
    }


def hang_up(*, caller: str, to: str, call_uuid: str, cause: str = "NORMAL_CLEARING", seconds: int = 42) -> Form:
    """Return the request for the end of a call."""
    return {
        **call(caller=caller, to=to, call_uuid=call_uuid, status="completed"),
        "BillDuration": "60",
        "Duration": str(seconds),
        "Event": "Hangup",
        "HangupCause": cause,
        "TotalCost": "0.004",
    }


# --- signing ----------------------------------------------------------------------------------------------------------
def signed(
    fields: Mapping[str, str], *, url: str, token: str, method: str = "POST", version: str = "V3", nonce: str = ""
) -> tuple[bytes, dict[str, str]]:
    """Return the body and headers with which Plivo posts the fields to `url`, the public address with its query.

    On a GET the fields belong in the query of `url`, and the body is empty. `version` is V2 or V3, with the prefix MA-
    for a signature by the main account's token.
    """
    body = b"" if method == "GET" else urlencode(fields).encode()
    nonce = nonce or str(secrets.randbelow(10**20)).zfill(20)
    address, _, query = url.partition("?")
    if version.endswith("V3"):
        asked = "&".join(f"{name}={value}" for name, value in sorted(parse_qsl(query, keep_blank_values=True)))
        said = "".join(f"{name}{value}" for name, value in sorted(fields.items())) if body else ""
        what = address + ("?" + asked if asked or said else "") + ("." if asked and said else "") + said + "."
    else:
        what = address
    digest = hmac.new(token.encode(), (what + nonce).encode(), hashlib.sha256).digest()
    headers = {
        f"X-Plivo-Signature-{version}": base64.b64encode(digest).decode(),
        f"X-Plivo-Signature-{version[-2:]}-Nonce": nonce,
    }
    return body, headers | ({} if method == "GET" else {"Content-Type": FORM})


# --- its API ----------------------------------------------------------------------------------------------------------
TEXT_LIMIT = 1600  # bytes


def problem_of(payload: object) -> str:
    """Return Plivo's error sentence for the body of a send, '' if it is valid."""
    if not isinstance(payload, dict):
        return "invalid JSON"
    source, destination, text = (payload.get(name) for name in ("src", "dst", "text"))
    if not isinstance(source, str) or not source:
        return "src parameter not present"
    if not isinstance(destination, str) or not all(each.isdigit() for each in destination.split("<")):
        return f"{destination} is not a valid phone number"
    if source in destination.split("<"):
        return "src and dst cannot be the same"
    if payload.get("type") == "mms" and isinstance(payload.get("media_urls"), list) and payload["media_urls"]:
        return ""
    if not isinstance(text, str) or not text:
        return "text parameter not present"
    return "text is too long" if len(text.encode()) > TEXT_LIMIT else ""
