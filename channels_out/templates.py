"""Templates: messages that a provider has approved beforehand, their variables, and what the person reads.

A template has components: a header (text, or a picture, video or document), a body, a footer and buttons. Its variables
stand in double braces, numbered or named. `fill` checks that every variable has its value, and returns what is sent and
the text as the person reads it.

Source: Meta, WhatsApp Business Platform, "Message templates", "Send template messages".
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from channels_out.errors import SentenceError
from channels_out.shapes import clean_text, identifier, items, text

LONGEST_BODY = 1024  # characters, filled, of a template that has more than a body
LONGEST_BODY_ALONE = 32_768
LONGEST_VALUE = 4_000
LONGEST_LINK = 2_000
MOST_VALUES = 50
APPROVED = "APPROVED"
TAKEN_WITHOUT_CONSENT = ("UTILITY", "AUTHENTICATION")  # categories that are no marketing
_MEDIA = {"IMAGE": "image", "VIDEO": "video", "DOCUMENT": "document"}
_VARIABLE = re.compile(r"\{\{\s*([A-Za-z0-9_]{1,60})\s*\}\}")
_WITH_VALUE = {"URL", "COPY_CODE", "OTP"}


class InvalidTemplateError(SentenceError):
    """A template cannot be filled so. The message is a sentence; `field` names what to correct."""

    def __init__(self, words: str, *, field: str = "template", **values: object) -> None:
        super().__init__(words, **values)
        self.field = field


@dataclass(frozen=True, slots=True)
class CatalogueTemplate:
    """A template as the provider lists it. `status`, `category` and `quality` are the provider's words, in capitals."""

    name: str
    language: str
    status: str
    category: str = ""
    quality: str = ""
    reason: str = ""
    components: tuple[Mapping[str, Any], ...] = ()


@dataclass(frozen=True, slots=True)
class TemplateValues:
    """The values for a template's variables.

    variables   of the body, by name ("1", "2", or the template's own names)
    header      of the header: its variable's text, or the https link of its picture, video or document
    filename    of a document
    buttons     by position, '' where a button needs none: the end of a URL, a code, or the payload of a quick reply
    """

    variables: Mapping[str, str] = field(default_factory=dict)
    header: str = ""
    filename: str = ""
    buttons: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class FilledTemplate:
    """A template with its values: what is sent, the text as the person reads it, and the buttons below."""

    components: tuple[Mapping[str, Any], ...]
    text: str
    buttons: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class TemplateNeeds:
    """The values that a template needs: its body's variables in order, its header ('' if nothing, else `text`, `image`,
    `video`, `document` or another word of the provider's), and for each button whether it must have a value."""

    variables: tuple[str, ...]
    header: str
    buttons: tuple[bool, ...]


def needs_of(components: Sequence[Mapping[str, Any]]) -> TemplateNeeds:
    """Return what a template with these components must be given."""
    header, body = _component(components, "HEADER"), _component(components, "BODY")
    kind = text(header, "format").upper()
    named = _MEDIA.get(kind, kind.lower())
    if kind in ("", "TEXT"):
        named = "text" if variables_in(text(header, "text")) else ""
    return TemplateNeeds(
        variables_in(text(body, "text")), named, tuple(_needs_value(each) for each in _buttons(components))
    )


def variables_in(words: str) -> tuple[str, ...]:
    """Return the names of the variables, each once, in order."""
    return tuple(dict.fromkeys(_VARIABLE.findall(words)))


def read_values(given: Any) -> TemplateValues:
    """Return the values that a program gives: `variables` (a list in order, or an object by name), `header` (a text, or
    an object with `link` and `filename`) and `buttons` (a list by position). Raises InvalidTemplateError."""
    if not isinstance(given, dict):
        raise InvalidTemplateError("template must be an object.")
    variables = given.get("variables") or {}
    if isinstance(variables, list):
        variables = {str(number): each for number, each in enumerate(variables, start=1)}
    if not isinstance(variables, dict) or len(variables) > MOST_VALUES:
        raise InvalidTemplateError("variables must be a list or an object of texts.", field="variables")
    header: Any = given.get("header") or ""
    filename: Any = ""
    if isinstance(header, dict):
        header, filename = header.get("link") or "", header.get("filename") or ""
    buttons = given.get("buttons") or []
    if not isinstance(buttons, list) or len(buttons) > MOST_VALUES:
        raise InvalidTemplateError("buttons must be a list of texts.", field="buttons")
    return TemplateValues(
        {str(name): _value(each, "variables") for name, each in variables.items()},
        _value(header, "header"),
        _value(filename, "header"),
        tuple(_value("" if each is None else each, "buttons") for each in buttons),
    )


def fill(components: Sequence[Mapping[str, Any]], values: TemplateValues) -> FilledTemplate:
    """Return the template with its values. Raises InvalidTemplateError for a value that is missing or too many."""
    sent: list[dict[str, Any]] = []
    header = _fill_header(_component(components, "HEADER"), values, sent)
    body = _fill_body(_component(components, "BODY"), values, sent, is_alone=len(components) == 1)
    buttons = _fill_buttons(_buttons(components), values, sent)
    footer = text(_component(components, "FOOTER"), "text")
    return FilledTemplate(tuple(sent), "\n\n".join(filter(None, (header, body, footer))), buttons)


def fill_unknown(values: TemplateValues) -> FilledTemplate:
    """Return what is sent of a template whose components are not known: the body's variables, in their order."""
    parameters = [_parameter(name, value) for name, value in values.variables.items()]
    return FilledTemplate(({"type": "body", "parameters": parameters},) if parameters else (), "")


def room_for_text(components: Sequence[Mapping[str, Any]]) -> int:
    """Return how many characters the values of the body's variables may have together."""
    body = text(_component(components, "BODY"), "text")
    return max(_longest(is_alone=len(components) == 1) - len(_VARIABLE.sub("", body)), 0)


# --- the components ---------------------------------------------------------------------------------------------------
def _fill_header(header: Mapping[str, Any], values: TemplateValues, sent: list[dict[str, Any]]) -> str:
    kind, words = text(header, "format").upper() or "TEXT", text(header, "text")
    if media := _MEDIA.get(kind):
        link = values.header
        if not link.startswith("https://") or len(link) > LONGEST_LINK or any(each.isspace() for each in link):
            raise InvalidTemplateError(
                "The template needs the https link of its %(media)s as header.", field="header", media=media
            )
        named = {"filename": values.filename} if values.filename and media == "document" else {}
        sent.append({"type": "header", "parameters": [{"type": media, media: {"link": link, **named}}]})
        return f"[{media}] {values.filename or link}"
    if kind != "TEXT":
        raise InvalidTemplateError(
            "A header of the kind %(kind)s cannot be sent from here.", field="header", kind=kind.lower()[:20]
        )
    names = variables_in(words)
    if bool(names) != bool(values.header):
        if names:
            raise InvalidTemplateError("The template's header needs a text.", field="header")
        raise InvalidTemplateError("The template's header has no variable.", field="header")
    if names:
        sent.append({"type": "header", "parameters": [_parameter(names[0], values.header)]})
    return _filled(words, dict.fromkeys(names, values.header))


def _fill_body(body: Mapping[str, Any], values: TemplateValues, sent: list[dict[str, Any]], *, is_alone: bool) -> str:
    words = text(body, "text")
    names = variables_in(words)
    if missing := [name for name in names if not values.variables.get(name)]:
        raise InvalidTemplateError("The template's variable %(name)s has no value.", field="variables", name=missing[0])
    if unknown := sorted(values.variables.keys() - set(names)):
        raise InvalidTemplateError("The template has no variable %(name)s.", field="variables", name=unknown[0][:40])
    filled = _filled(words, values.variables)
    if len(filled) > (most := _longest(is_alone=is_alone)):
        raise InvalidTemplateError(
            "The template's text would be longer than %(most)s characters.", field="variables", most=f"{most:,}"
        )
    if names:
        sent.append({"type": "body", "parameters": [_parameter(name, values.variables[name]) for name in names]})
    return filled


def _fill_buttons(buttons: Sequence[Any], values: TemplateValues, sent: list[dict[str, Any]]) -> tuple[str, ...]:
    if len(values.buttons) > len(buttons):
        raise InvalidTemplateError("The template has %(count)s buttons.", field="buttons", count=len(buttons))
    for number, button in enumerate(buttons):
        value = values.buttons[number] if number < len(values.buttons) else ""
        kind = text(button, "type").upper()
        if not value:
            if _needs_value(button):
                raise InvalidTemplateError(
                    "The template's button %(number)s needs a value.", field="buttons", number=number + 1
                )
            continue
        if kind != "QUICK_REPLY" and not _needs_value(button):
            raise InvalidTemplateError(
                "The template's button %(number)s takes no value.", field="buttons", number=number + 1
            )
        sub_type, parameter = {
            "QUICK_REPLY": ("quick_reply", {"type": "payload", "payload": value}),
            "COPY_CODE": ("copy_code", {"type": "coupon_code", "coupon_code": value}),
        }.get(kind, ("url", {"type": "text", "text": value}))
        sent.append({"type": "button", "sub_type": sub_type, "index": str(number), "parameters": [parameter]})
    return tuple(text(button, "text") or text(button, "type").replace("_", " ").lower() for button in buttons)


def _component(components: Sequence[Mapping[str, Any]], kind: str) -> Mapping[str, Any]:
    return next((each for each in components if text(each, "type").upper() == kind), {})


def _buttons(components: Sequence[Mapping[str, Any]]) -> list[Any]:
    return items(_component(components, "BUTTONS"), "buttons")


def _needs_value(button: Any) -> bool:
    kind = text(button, "type").upper()
    return kind in _WITH_VALUE and (kind != "URL" or bool(variables_in(text(button, "url"))))


def _parameter(name: str, value: str) -> dict[str, Any]:
    named = {} if name.isdigit() else {"parameter_name": name}
    return {"type": "text", **named, "text": value}


def _filled(words: str, values: Mapping[str, str]) -> str:
    return _VARIABLE.sub(lambda found: values.get(found[1], found[0]), words)


def _longest(*, is_alone: bool) -> int:
    return LONGEST_BODY_ALONE if is_alone else LONGEST_BODY


def _value(value: Any, name: str) -> str:
    """Return a value on one line: Meta takes no line breaks, tabs or long blanks in it."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise InvalidTemplateError("%(name)s: every value must be a text or a number.", field=name, name=name)
    words = " ".join(clean_text(str(value)).split())
    if len(words) > LONGEST_VALUE:
        raise InvalidTemplateError(
            "%(name)s: a value has at most %(most)s characters.", field=name, name=name, most=f"{LONGEST_VALUE:,}"
        )
    return words


# --- the catalogue ----------------------------------------------------------------------------------------------------
def read_listed(item: Any) -> CatalogueTemplate | None:
    """Return a template of the provider's list, None if it has no name and language."""
    name, language = identifier(item, "name")[:512], identifier(item, "language")[:20]
    if not name or not language:
        return None
    listed = [each for each in items(item, "components")[:20] if type(each) is dict]
    score = item.get("quality_score")
    reason = text(item, "rejected_reason")
    return CatalogueTemplate(
        name,
        language,
        text(item, "status").upper()[:30],
        text(item, "category").upper()[:30],
        (text(score, "score") if type(score) is dict else "").upper()[:20],
        "" if reason.upper() == "NONE" else reason[:200],
        tuple(_plain(each) for each in listed),
    )


def _plain(component: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the component without examples, which may quote people, and with the fields that are used here alone."""
    kept = {name: clean_text(text(component, name))[:LONGEST_BODY_ALONE] for name in ("type", "format", "text")}
    plain: dict[str, Any] = {name: value for name, value in kept.items() if value}
    if buttons := items(component, "buttons"):
        plain["buttons"] = [
            {name: clean_text(text(each, name))[:LONGEST_LINK] for name in ("type", "text", "url") if text(each, name)}
            for each in buttons[:10]
        ]
    return plain
