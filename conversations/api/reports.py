"""Reports by HTTP: the figures of the key's client over some days."""

from __future__ import annotations

from datetime import date, timedelta
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

from django.contrib.auth import get_user_model
from django.utils import timezone
from drf_spectacular.utils import extend_schema
from rest_framework import serializers, viewsets
from rest_framework.request import Request
from rest_framework.response import Response

from channels_out.kinds import Channel
from conversations.api.fields import Choice, Text, read
from conversations.http.auth import key_of
from conversations.models import Assistant, Client, Label, QuarterTimes, Scope, Team
from conversations.models.figures import COLUMNS
from conversations.services.figures.reading import LONGEST_DAYS, MOST, Narrowed, Numbers, Period, Step, report

USUAL_DAYS = 30
EARLIEST, LATEST = date(2001, 12, 31), date(2199, 12, 31)
STEPS = [each.value for each in Step if each != Step.HOUR]
NO_ASSISTANT, NO_LABEL, NO_TEAM = UUID(int=2**128 - 1), -1, -1  # ids that nothing has


class ReportFilterSerializer(serializers.Serializer[Any]):
    """The days of a report, its steps, and what it is narrowed to."""

    last = serializers.DateField(
        required=False, help_text="The last day. Default: today. The years are 2001 to 2199; others count as these."
    )
    days = serializers.IntegerField(default=USUAL_DAYS, min_value=1, max_value=LONGEST_DAYS)
    step = Choice(choices=STEPS, default="day")
    channel = Choice(choices=[each.value for each in Channel], required=False)
    assistant = Text(required=False, max_length=100, help_text="The assistant's key. An unknown one has no figures.")
    team = Text(required=False, max_length=60, help_text="The team's name. An unknown one has no figures.")
    label = Text(required=False, max_length=40)  # type: ignore[assignment]  # DRF's own fields have labels


class TimeSerializer(serializers.Serializer[Any]):
    """Times in seconds; null without any."""

    median = serializers.FloatField(allow_null=True)
    p90 = serializers.FloatField(allow_null=True)


class FiguresSerializer(serializers.Serializer[Any]):
    """Figures of some time."""

    opened = serializers.IntegerField(help_text="Conversations that began.")
    ended = serializers.IntegerField()
    answered_alone = serializers.IntegerField(help_text="Of those that ended: answered, without a person.")
    handed_over = serializers.IntegerField(help_text="Of those that ended: taken over, or a person was called.")
    late = serializers.IntegerField(
        help_text="Of those that ended: the first response or the end came later than the client promises."
    )
    messages_in = serializers.IntegerField()
    messages_out = serializers.IntegerField()
    asked = serializers.IntegerField(help_text="Questions about satisfaction.")
    ratings = serializers.IntegerField()
    satisfied = serializers.IntegerField(help_text="Ratings of 4 or 5.")
    rating_sum = serializers.IntegerField(help_text="The sum of the ratings, each 1 to 5.")
    tokens = serializers.IntegerField()
    cost = serializers.DecimalField(20, 8, help_text="US dollars, by the prices at the time.")
    first_response = TimeSerializer(help_text="From a person's first message to the first reply.")
    resolution = TimeSerializer(help_text="From the beginning to the end, of conversations that were closed.")


class StepFiguresSerializer(FiguresSerializer):
    """Figures of a step."""

    begins = serializers.CharField(help_text="Local date and time at which the step begins, without offset.")


class NamedFiguresSerializer(FiguresSerializer):
    """Figures of one channel, assistant, colleague, team or label."""

    name = serializers.CharField(
        allow_null=True,
        help_text="The channel, the assistant's key, the user name, the team, or the label. Null: none.",
    )


class ReportSerializer(serializers.Serializer[Any]):
    """A report. Days and steps are those of the client's time zone."""

    first = serializers.DateField()
    last = serializers.DateField()
    time_zone = serializers.CharField()
    step = serializers.CharField()
    total = FiguresSerializer()
    before = FiguresSerializer(help_text="Of as many days before.")
    steps = StepFiguresSerializer(many=True)
    channels = NamedFiguresSerializer(many=True)
    assistants = NamedFiguresSerializer(many=True)
    colleagues = NamedFiguresSerializer(many=True)
    teams = NamedFiguresSerializer(many=True)
    labels = NamedFiguresSerializer(many=True)


class ReportViewSet(viewsets.GenericViewSet[Client]):
    """The figures of the key's client."""

    serializer_class = ReportSerializer
    http_method_names = ["get", "head"]
    schema_group = "reports"
    scopes = {"report": Scope.CONVERSATIONS_READ}
    queryset = Client.objects.none()

    @extend_schema(parameters=[ReportFilterSerializer], responses=ReportSerializer)
    def report(self, request: Request) -> Response:
        """Return figures by day, week or month, in total, and by channel, assistant, colleague, team and label.
        They are counted every quarter of an hour."""
        wanted, client = read(ReportFilterSerializer, request.query_params.dict()), key_of(request).client
        period, step = _period(wanted, ZoneInfo(client.time_zone)), Step(wanted["step"])
        found = report(client.pk, period, step, _narrowed(wanted, client))
        names = _names(client, found.by)
        named = {
            f"{split}s": [{"name": names[split].get(key), **_figures(each)} for key, each in of_split.items()]
            for split, of_split in found.by.items()
        }
        steps = [{"begins": at.isoformat(), **_figures(each)} for at, each in found.steps.items()]
        answer = {
            "first": period.first,
            "last": period.last,
            "time_zone": period.zone.key,
            "step": step.value,
            "total": _figures(found.total),
            "before": _figures(found.before),
            "steps": steps,
            **named,
        }
        return Response(ReportSerializer(answer).data)


def _period(wanted: dict[str, Any], zone: ZoneInfo) -> Period:
    """Return the days that are asked for."""
    last = min(max(wanted.get("last") or timezone.now().astimezone(zone).date(), EARLIEST), LATEST)
    return Period(last - timedelta(days=wanted["days"] - 1), last, zone)


def _narrowed(wanted: dict[str, Any], client: Client) -> Narrowed:
    """Return what the report is narrowed to; to nothing, where an assistant, a label or a team is not there."""
    assistant_id: UUID | None = None
    label_id: int | None = None
    team_id: int | None = None
    if key := wanted.get("assistant"):
        found = Assistant.objects.filter(client=client, key=key).values_list("pk", flat=True)
        assistant_id = found.first() or NO_ASSISTANT
    if name := wanted.get("label"):
        label_id = Label.objects.filter(client=client, name=name).values_list("pk", flat=True).first() or NO_LABEL
    if name := wanted.get("team"):
        team_id = Team.objects.filter(client=client, name=name).values_list("pk", flat=True).first() or NO_TEAM
    return Narrowed(wanted.get("channel", ""), assistant_id, label_id=label_id, team_id=team_id)


def _names(client: Client, by: dict[str, dict[Any, Numbers]]) -> dict[str, dict[Any, str]]:
    users = get_user_model().objects.filter(pk__in=[key for key in by["colleague"] if key])
    return {
        "channel": {key: key for key in by["channel"]},
        "assistant": dict(Assistant.objects.filter(client=client).values_list("pk", "key")),
        "colleague": dict(users.values_list("pk", "username")),
        "team": dict(Team.objects.filter(client=client).values_list("pk", "name")),
        "label": dict(Label.objects.filter(client=client).values_list("pk", "name")),
    }


def _figures(numbers: Numbers) -> dict[str, Any]:
    return {
        **{name: numbers[name] for name in COLUMNS},
        "first_response": _times(numbers, QuarterTimes.Kind.FIRST_RESPONSE),
        "resolution": _times(numbers, QuarterTimes.Kind.RESOLUTION),
    }


def _times(numbers: Numbers, kind: str) -> dict[str, float | None]:
    median, most = numbers.time(kind), numbers.time(kind, MOST)
    return {
        "median": None if median is None else round(median, 1),
        "p90": None if most is None else round(most, 1),
    }
