"""The part of a client's form about hours: when colleagues are there, what happens outside, and what is promised."""

from __future__ import annotations

from typing import Any

from django import forms
from django.core.validators import MaxLengthValidator
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from unfold.widgets import (
    UnfoldAdminRadioSelectWidget,
    UnfoldAdminSelectWidget,
    UnfoldAdminTextareaWidget,
    UnfoldAdminTextInputWidget,
    UnfoldBooleanSwitchWidget,
)

from conversations.admin.durations import DurationInWordsField
from conversations.admin.hours_fields import DAYS, HolidaysField, WeekField
from conversations.models import Client, ClientHours
from conversations.models.client import LONGEST_SENTENCE
from conversations.services.core import hours
from conversations.services.core.durations import in_words
from conversations.services.tenants import client_hours

LANGUAGES = [("en", "English"), ("es", "Español"), ("pt", "Português")]
FIELDS = (
    *("week", "holidays", "outside", "outside_sentence", "outside_language"),
    *("first_response_within", "resolve_within", "counts_business_time"),
)
HOURS = gettext_lazy("Business hours")
PROMISES = gettext_lazy("Promises")


def _promise(label: Any, help_text: Any) -> DurationInWordsField:
    return DurationInWordsField(label=label, help_text=help_text, required=False, widget=UnfoldAdminTextInputWidget)


class ClientHoursForm(forms.ModelForm):  # type: ignore[type-arg]
    """The fields of a client's form that stand in its hours."""

    week = WeekField(
        label=gettext_lazy("Weekly hours"),
        required=False,
        help_text=gettext_lazy("In the client's time zone. A day may end at 24:00; a night is two spans, on two days."
                               " Without any hours colleagues count as always there."),
    )  # fmt: skip
    holidays = HolidaysField(
        label=gettext_lazy("Holidays"),
        required=False,
        help_text=gettext_lazy("Days with other hours than their weekday's, or without any."),
    )
    outside = forms.ChoiceField(
        label=gettext_lazy("Outside the hours"),
        required=False,
        choices=ClientHours.Outside.choices,
        widget=UnfoldAdminRadioSelectWidget,
        help_text=gettext_lazy("Phone calls are always handed over at once."),
    )
    outside_sentence = forms.CharField(
        label=gettext_lazy("Sentence outside the hours"),
        required=False,
        validators=[MaxLengthValidator(LONGEST_SENTENCE)],
        widget=UnfoldAdminTextareaWidget(attrs={"rows": 2}),
        help_text=gettext_lazy("Said when a hand-over waits for the next opening. {when} stands for the day and time,"
                               " such as Monday 9:00. Empty: nothing is said."),
    )  # fmt: skip
    outside_language = forms.ChoiceField(
        label=gettext_lazy("Language of the day and time"),
        required=False,
        choices=LANGUAGES,
        widget=UnfoldAdminSelectWidget,
    )
    first_response_within = _promise(
        gettext_lazy("First response within"),
        gettext_lazy("From a person's first message to the first answer, the assistant's included. Empty: no promise."),
    )
    resolve_within = _promise(
        gettext_lazy("Resolved within"),
        gettext_lazy("From the opening of a conversation to its end. Such as 2 days. Empty: no promise."),
    )
    counts_business_time = forms.BooleanField(
        label=gettext_lazy("Promises count business hours alone"),
        required=False,
        widget=UnfoldBooleanSwitchWidget,
        help_text=gettext_lazy("Off: they count by the clock, nights and holidays included."),
    )

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        stored = client_hours.stored(self.instance)
        for name in {*FIELDS} & self.fields.keys():
            self.initial[name] = getattr(stored, name)

    def clean_outside(self) -> str:
        """Return the choice; the present one if none was sent."""
        return str(self.cleaned_data["outside"] or self.initial["outside"])

    def clean_outside_language(self) -> str:
        """Return the language; the present one if none was sent."""
        return str(self.cleaned_data["outside_language"] or self.initial["outside_language"])

    def clean_first_response_within(self) -> Any:
        """Return the promise. Raises ValidationError for no time."""
        return _some_time(self.cleaned_data["first_response_within"])

    def clean_resolve_within(self) -> Any:
        """Return the promise. Raises ValidationError for no time."""
        return _some_time(self.cleaned_data["resolve_within"])

    def clean(self) -> dict[str, Any]:
        """Return the cleaned values. Refuse what makes no sense without weekly hours."""
        given: dict[str, Any] = super().clean() or self.cleaned_data
        if "week" not in given or any(given["week"]):
            return given
        if given.get("holidays"):
            self.add_error("holidays", _("Set the weekly hours first: without them it is always open."))
        if given.get("outside", ClientHours.Outside.ALWAYS) != ClientHours.Outside.ALWAYS:
            self.add_error("outside", _("Set the weekly hours first: without them nothing is outside."))
        return given

    def values_of_hours(self) -> dict[str, Any]:
        """Return what was entered of the hours, by field."""
        return {name: self.cleaned_data[name] for name in FIELDS if name in self.cleaned_data}


def _some_time(span: Any) -> Any:
    if span is not None and not span:
        raise forms.ValidationError(_("A promise needs some time. Without one it is empty."))
    return span


FIELDSETS: Any = [
    (HOURS, {"fields": ["week", "holidays", "outside", "outside_sentence", "outside_language"]}),
    (
        PROMISES,
        {
            "fields": ["first_response_within", "answer_within", "resolve_within", "counts_business_time"],
            "description": gettext_lazy(
                "What is due soon, or late, has a clock in the inbox. “Late first” sorts by it."
            ),
        },
    ),
]


def summary(client: Client) -> str:
    """Return the hours, holidays and promises in words, for those who cannot change them."""
    stored = client_hours.stored(client)
    if not any(stored.week):
        return _("Always open")
    days = [f"{day} {_spans(spans) or _('closed')}" for day, spans in zip(DAYS, stored.week, strict=True)]
    days += [f"{each['on']} {each['name']}: {_spans(each['hours']) or _('closed')}" for each in stored.holidays]
    return "; ".join(days)


def promises_summary(client: Client) -> str:
    """Return the promises in words, for those who cannot change them."""
    stored = client_hours.stored(client)
    made = [
        (_("first response within %(time)s"), stored.first_response_within),
        (_("answer within %(time)s"), client.answer_within),
        (_("resolved within %(time)s"), stored.resolve_within),
    ]
    return ", ".join(words % {"time": in_words(span)} for words, span in made if span) or _("None")


def _spans(stored: Any) -> str:
    return hours.in_words([(begin, end) for begin, end in stored])
