"""The form fields of business hours and holidays: a row for each day, with as many spans as it has."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import date
from typing import Any

from django import forms
from django.core.exceptions import ValidationError
from django.template.loader import render_to_string
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from conversations.services.core import hours
from conversations.services.core.hours import Span

DAYS = (
    *(gettext_lazy("Monday"), gettext_lazy("Tuesday"), gettext_lazy("Wednesday"), gettext_lazy("Thursday")),
    *(gettext_lazy("Friday"), gettext_lazy("Saturday"), gettext_lazy("Sunday")),
)
MOST_SPANS = 6  # of a day
MOST_HOLIDAYS = 200
LONGEST_NAME = 80  # characters of a holiday's
CSS, JS = {"all": ["conversations/hours.css"]}, ["conversations/hours.js"]


class WeekWidget(forms.Widget):
    """Rows of weekdays, each with its spans. What it reads is seven lists of pairs of texts."""

    use_fieldset = True

    class Media:
        css = CSS
        js = JS

    def value_from_datadict(self, data: Any, files: Any, name: str) -> list[list[tuple[str, str]]]:
        """Return what was posted. Spans of which both fields are empty are left out."""
        return [
            [
                (begin.strip(), end.strip())
                for begin, end in zip(
                    _posted(data, f"{name}-{day}-from"), _posted(data, f"{name}-{day}-to"), strict=False
                )
                if begin.strip() or end.strip()
            ]
            for day in range(7)
        ]

    def value_omitted_from_data(self, data: Any, files: Any, name: str) -> bool:
        """Return whether the form did not show the week."""
        return f"{name}-shown" not in data

    def render(self, name: str, value: Any, attrs: Any = None, renderer: Any = None) -> SafeString:
        """Return the rows."""
        shown = [[_as_texts(span) for span in day] for day in value or [[]] * 7]
        days = [(number, DAYS[number], spans) for number, spans in enumerate(shown)]
        context = {"name": name, "days": days, "most": MOST_SPANS, "id": (attrs or {}).get("id", "")}
        return render_to_string("admin/hours/week.html", context)


class HolidaysWidget(forms.Widget):
    """Rows of holidays. What it reads is a list of (date, name, hours), each a text."""

    use_fieldset = True

    class Media:
        css = CSS
        js = JS

    def value_from_datadict(self, data: Any, files: Any, name: str) -> list[tuple[str, str, str]]:
        """Return what was posted. Rows without a date and a name are left out."""
        columns = [_posted(data, f"{name}-{part}") for part in ("on", "name", "hours")]
        rows = [tuple(each.strip().replace("\x00", "") for each in row) for row in zip(*columns, strict=False)]
        return [row for row in rows if any(row)]

    def value_omitted_from_data(self, data: Any, files: Any, name: str) -> bool:
        """Return whether the form did not show the holidays."""
        return f"{name}-shown" not in data

    def render(self, name: str, value: Any, attrs: Any = None, renderer: Any = None) -> SafeString:
        """Return the rows."""
        shown = [_as_row(each) for each in value or []]
        context = {"name": name, "holidays": shown, "longest": LONGEST_NAME, "id": (attrs or {}).get("id", "")}
        return render_to_string("admin/hours/holidays.html", context)


class WeekField(forms.Field):
    """The hours of a week, as they are stored: seven lists of [begin, end] in minutes."""

    widget = WeekWidget

    def to_python(self, value: Any) -> list[list[list[int]]]:
        """Return the hours, each day's in their order. Raises ValidationError with a sentence for each wrong day."""
        week, wrong = [], []
        for day, spans in zip(DAYS, value or [[]] * 7, strict=True):
            try:
                week.append(_read(spans))
            except ValidationError as error:
                wrong.append(f"{day}: {error.messages[0]}")
        if wrong:
            raise ValidationError(wrong, code="hours")
        return week

    def has_changed(self, initial: Any, data: Any) -> bool:
        """Return whether the hours differ; what cannot be read does."""
        try:
            return bool(self.to_python(data) != (initial or [[]] * 7))
        except ValidationError:
            return True


class HolidaysField(forms.Field):
    """Holidays as they are stored, by their date."""

    widget = HolidaysWidget

    def to_python(self, value: Any) -> list[dict[str, Any]]:
        """Return the holidays. Raises ValidationError with a sentence for each wrong one."""
        found: dict[str, dict[str, Any]] = {}
        wrong = []
        for row in value or []:
            try:
                holiday = _holiday(*row, known=found)
                found[holiday["on"]] = holiday
            except ValidationError as error:
                wrong.append(f"{row[0] or row[1]}: {error.messages[0]}")
        if len(found) > MOST_HOLIDAYS:
            wrong.append(_("At most %(most)s holidays are possible. Delete past ones.") % {"most": MOST_HOLIDAYS})
        if wrong:
            raise ValidationError(wrong, code="holidays")
        return [found[on] for on in sorted(found)]

    def has_changed(self, initial: Any, data: Any) -> bool:
        """Return whether the holidays differ; what cannot be read does."""
        try:
            return bool(self.to_python(data) != (initial or []))
        except ValidationError:
            return True


def _posted(data: Any, name: str) -> list[str]:
    found: list[str] = data.getlist(name) if hasattr(data, "getlist") else data.get(name, [])
    return found[: MOST_HOLIDAYS + 1]


def _date(text: str) -> str:
    try:
        return date.fromisoformat(text).isoformat()
    except ValueError:
        raise ValidationError(_("Choose a date.")) from None


def _holiday(written: str, name: str, spans: str, *, known: Collection[str]) -> dict[str, Any]:
    """Return the holiday as it is stored. Raises ValidationError with a sentence."""
    on = _date(written)
    if not name:
        raise ValidationError(_("Give the holiday a name."))
    if len(name) > LONGEST_NAME:
        raise ValidationError(_("The name is longer than %(most)s characters.") % {"most": LONGEST_NAME})
    if on in known:
        raise ValidationError(_("This date is in the list twice."))
    return {"on": on, "name": name, "hours": _read(_pairs(spans))}


def _pairs(text: str) -> list[tuple[str, str]]:
    """Return the pairs of times in a text like "9:00-13:00, 14:00-18:00"."""
    parts = [part.replace("\N{EN DASH}", "-").partition("-") for part in text.split(",") if part.strip()]
    return [(begin.strip(), end.strip()) for begin, _dash, end in parts]


def _read(spans: Sequence[tuple[str, str]]) -> list[list[int]]:
    """Return the spans in minutes, in their order. Raises ValidationError with a sentence."""
    if len(spans) > MOST_SPANS:
        raise ValidationError(_("A day has at most %(most)s spans.") % {"most": MOST_SPANS})
    found: list[Span] = []
    for pair in spans:
        begin, end = (hours.minutes_of(each) for each in pair)
        if begin is None or end is None:
            wrong = next((each for each in pair if each and hours.minutes_of(each) is None), "")
            said = (
                _("“%(text)s” is no time.") % {"text": wrong[:20]} if wrong else _("One of the two times is missing.")
            )
            raise ValidationError(f"{said} {_('Write times like 9:00 or 17:30; a day ends at 24:00.')}")
        found.append((begin, end))
    found.sort()
    if said := hours.problem(found):
        raise ValidationError(said)
    return [[begin, end] for begin, end in found]


def _as_texts(span: Sequence[Any]) -> tuple[str, str]:
    """Return the times of a span as texts: of what is stored, or as they were posted."""
    begin, end = (hours.clock(each) if isinstance(each, int) else str(each) for each in span)
    return begin, end


def _as_row(row: Any) -> dict[str, str]:
    if isinstance(row, dict):
        return {"on": row["on"], "name": row["name"], "hours": hours.in_words([(b, e) for b, e in row["hours"]])}
    on, name, spans = row
    return {"on": on, "name": name, "hours": spans}
