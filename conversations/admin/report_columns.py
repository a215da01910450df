"""The figures as a report shows them: their names, their values, and their words."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from django.utils.formats import number_format
from django.utils.functional import Promise
from django.utils.translation import gettext_lazy as _

from conversations.models import QuarterTimes
from conversations.services.figures.reading import MOST, Numbers

FIRST, RESOLUTION = QuarterTimes.Kind.FIRST_RESPONSE, QuarterTimes.Kind.RESOLUTION
COUNT, SECONDS, PERCENT, SCORE, DOLLARS = "count", "seconds", "percent", "score", "dollars"
NOTHING = "—"

Words = str | Promise


@dataclass(frozen=True, slots=True)
class Column:
    """A figure. `value` returns a number, or None where there is nothing to tell."""

    name: str
    title: Words
    kind: str
    value: Callable[[Numbers], Any]

    def words(self, numbers: Numbers) -> str:
        """Return the value as people read it."""
        return words_of(self.kind, self.value(numbers))


@dataclass(frozen=True, slots=True)
class Chart:
    """A chart over time: the figures that it shows, and those that its table has besides. `shape`: bar or line."""

    name: str
    title: Words
    shape: str
    shown: tuple[Column, ...]
    more: tuple[Column, ...] = ()
    note: Words = ""


def words_of(kind: str, value: Any) -> str:
    """Return a value of this kind as people read it; a dash for None."""
    if value is None:
        return NOTHING
    if kind == SECONDS:
        return duration(value)
    if kind == PERCENT:
        return f"{number_format(value, 0 if value in (0, 100) else 1)} %"
    if kind == SCORE:
        return number_format(value, 1)
    if kind == DOLLARS:
        return f"${number_format(value, 2, force_grouping=True)}"
    return number_format(value, 0, force_grouping=True)


def duration(seconds: float) -> str:
    """Return seconds in their two largest units."""
    if seconds < 10:
        return f"{number_format(seconds, 1)} s"
    left, parts = round(seconds), []
    for unit, length in (("d", 86_400), ("h", 3_600), ("min", 60), ("s", 1)):
        if left >= length:
            parts.append(f"{left // length} {unit}")
            left %= length
        elif parts:
            break
    return " ".join(parts[:2])


def _sum(name: str, title: Words, kind: str = COUNT) -> Column:
    return Column(name, title, kind, lambda numbers: numbers[name])


def _share(name: str, title: Words, part: str, whole: str) -> Column:
    return Column(name, title, PERCENT, lambda numbers: numbers.share(part, whole))


OPENED = _sum("opened", _("Opened"))
ENDED = _sum("ended", _("Ended"))
SAID = _sum("messages_in", _("Messages in"))
REPLIED = _sum("messages_out", _("Messages out"))
FIRST_HALF = Column("first_response", _("First response (median)"), SECONDS, lambda n: n.time(FIRST))
FIRST_MOST = Column("first_response_p90", _("First response (90 %)"), SECONDS, lambda n: n.time(FIRST, MOST))
RESOLVED_HALF = Column("resolution", _("Resolution (median)"), SECONDS, lambda n: n.time(RESOLUTION))
RESOLVED_MOST = Column("resolution_p90", _("Resolution (90 %)"), SECONDS, lambda n: n.time(RESOLUTION, MOST))
ALONE = _share("alone", _("Without a person"), "answered_alone", "ended")
HANDED_OVER = _sum("handed_over", _("Hand-overs"))
LATE = _sum("late", _("Late"))
LATE_SHARE = _share("late_share", _("Late, of those that ended"), "late", "ended")
SATISFACTION = _share("satisfaction", _("Satisfied"), "satisfied", "ratings")
ASKED = _sum("asked", _("Asked"))
RATINGS = _sum("ratings", _("Ratings"))
SCORE_MEAN = Column(
    "score", _("Mean of 1 to 5"), SCORE, lambda n: n["rating_sum"] / n["ratings"] if n["ratings"] else None
)
TOKENS = _sum("tokens", _("Tokens"))
COST = _sum("cost", _("Cost"), DOLLARS)

CARDS = (OPENED, ENDED, SAID, FIRST_HALF, RESOLVED_HALF, ALONE, HANDED_OVER, LATE, SATISFACTION, COST)
OF_EACH = (*CARDS[:-1], TOKENS, COST)
CHARTS = (
    Chart("conversations", _("Conversations"), "bar", (OPENED, ENDED)),
    Chart("messages", _("Messages"), "bar", (SAID, REPLIED)),
    Chart(
        "first-response",
        _("First response"),
        "line",
        (FIRST_HALF, FIRST_MOST),
        note=_("From a person's first message to the first reply, of the assistant or of a colleague."),
    ),
    Chart(
        "resolution",
        _("Resolution"),
        "line",
        (RESOLVED_HALF, RESOLVED_MOST),
        note=_("From the beginning to the end, of conversations that were closed and did not expire."),
    ),
    Chart(
        "without-a-person",
        _("Answered without a person"),
        "line",
        (ALONE,),
        (ENDED, HANDED_OVER),
        _("Of the conversations that ended: the assistant answered, and nobody took them over."),
    ),
    Chart(
        "late",
        _("Late"),
        "bar",
        (LATE,),
        (ENDED, LATE_SHARE),
        _("Of the conversations that ended: the first response or the end came later than promised."),
    ),
    Chart("satisfaction", _("Satisfaction"), "line", (SATISFACTION,), (ASKED, RATINGS, SCORE_MEAN)),
    Chart("tokens", _("Tokens"), "bar", (TOKENS,), note=_("Of replies, in and out. Summaries are not in it.")),
    Chart("cost", _("Cost"), "bar", (COST,), note=_("US dollars, by the known prices at the time.")),
)
SPLITS = {
    "channel": (_("By channel"), _("Channel"), OF_EACH),
    "assistant": (_("By assistant"), _("Assistant"), OF_EACH),
    "colleague": (
        _("By colleague"),
        _("Colleague"),
        (REPLIED, FIRST_HALF, ENDED, RESOLVED_HALF, HANDED_OVER, LATE, RATINGS, SATISFACTION),
    ),
    "team": (_("By team"), _("Team"), OF_EACH),
    "label": (_("By label"), _("Label"), OF_EACH),
}
