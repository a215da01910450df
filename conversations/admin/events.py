"""Events out: endpoints, and the log of what was posted to them, with its bodies."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any
from uuid import UUID

from django import forms
from django.contrib import admin
from django.contrib.admin.views.main import ChangeList
from django.db.models import Count, Q, QuerySet
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.urls import reverse
from django.utils import timezone
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import gettext
from unfold.decorators import display
from unfold.widgets import UnfoldAdminCheckboxSelectMultipleWidget, UnfoldAdminURLInputWidget

from conversations.admin.base import ClientScopedAdmin, ReadOnlyAdmin, VisibleRowsFilter
from conversations.admin.confirmation import confirmed
from conversations.admin.one_time_secret import show_once
from conversations.models import Event, EventDelivery, EventEndpoint, EventKind
from conversations.services.core.errors import InvalidError
from conversations.services.events import bodies, endpoints
from conversations.words import lazy as _

Status = EventDelivery.Status
WAITING = "convo_waiting"  # an attribute of a listed endpoint: how many events wait, by endpoint
REASONS = {
    "staff": _("paused by staff"),
    "gone": _("paused: the server says that it is gone (410)"),
    "failing": _("paused: it has failed for three days"),
}


class EndpointForm(forms.ModelForm):  # type: ignore[type-arg]
    """The form of an endpoint, with the events that it gets."""

    kinds = forms.MultipleChoiceField(
        label=_("Events"),
        required=False,
        choices=[(kind.value, f"{kind.value} - {kind.label}") for kind in EventKind],
        widget=UnfoldAdminCheckboxSelectMultipleWidget,
        help_text=_("None chosen: all."),
    )

    url = forms.URLField(
        label=_("URL"),
        max_length=500,
        assume_scheme="https",
        widget=UnfoldAdminURLInputWidget,
        help_text=_("Events are posted here, signed. It begins with https:// or http://."),
    )

    class Meta:
        model = EventEndpoint
        fields = "__all__"  # noqa: DJ007 - the page says which

    def clean(self) -> dict[str, Any]:
        """Return the cleaned values. Refuse a URL that cannot be posted to, and one that is taken."""
        cleaned: dict[str, Any] = super().clean() or self.cleaned_data
        if self.errors:
            return cleaned
        client = cleaned.get("client") or self.instance.client
        taken = EventEndpoint.objects.filter(client=client, url=cleaned["url"]).exclude(pk=self.instance.pk)
        if taken.exists():
            self.add_error("url", gettext("This client has an endpoint with this URL already."))
            return cleaned
        try:
            endpoints.check(EventEndpoint(client=client, url=cleaned["url"], kinds=cleaned["kinds"]))
        except InvalidError as error:
            self.add_error("url", str(error).partition(": ")[2])
        return cleaned


class InTrouble(admin.SimpleListFilter):
    """Endpoints that fail or are paused."""

    title = _("state")
    parameter_name = "trouble"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        """Return the only choice beside all."""
        return [("1", gettext("failing or paused"))]

    def queryset(self, request: HttpRequest, queryset: QuerySet[EventEndpoint]) -> QuerySet[EventEndpoint]:
        """Return the endpoints that are wanted."""
        in_trouble = Q(failing_since__isnull=False) | Q(paused_at__isnull=False)
        return queryset.filter(in_trouble) if self.value() == "1" else queryset


def _count_waiting(endpoints: Sequence[EventEndpoint]) -> dict[UUID, int]:
    """Return by endpoint how many events wait; a statement of its own, since a cluster takes none within theirs."""
    clients = {endpoint.client_id for endpoint in endpoints}
    waiting = EventDelivery.objects.filter(
        client__in=clients, endpoint__in=[endpoint.pk for endpoint in endpoints], status=Status.PENDING
    )
    return dict(waiting.order_by().values_list("endpoint").annotate(Count("pk")))


class EndpointChangeList(ChangeList):
    """One page of endpoints. The events that wait are counted for the whole page at once."""

    def get_results(self, request: HttpRequest) -> None:
        """Read the rows of the page and what waits for them."""
        super().get_results(request)
        endpoints: Any = list(self.result_list)
        counted = _count_waiting(endpoints)
        for endpoint in endpoints:
            setattr(endpoint, WAITING, counted)
        self.result_list = endpoints


@admin.register(EventEndpoint)
class EventEndpointAdmin(ClientScopedAdmin):
    """The URLs that a client's events are posted to."""

    form = EndpointForm
    client_path = "client"
    empty_message = _("No program is told of events yet. Add its URL.")
    list_display = ["url", "client", "state", "waiting", "succeeded_at"]
    list_filter = [InTrouble, ("client", VisibleRowsFilter)]
    list_select_related = ["client"]
    search_fields = ["url"]
    actions_detail = ["pause", "resume", "rotate", "remove"]

    def get_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        """Return the fields; of an endpoint that exists, with its state."""
        state = [
            "said_state",
            "waiting",
            "last_code",
            "failing_since",
            "next_try_at",
            "succeeded_at",
            "created_at",
            "log",
        ]
        return ["client", "url", "kinds", "private", *(state if obj else [])]

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> list[str]:
        """Return the fields that cannot be changed."""
        return list(self.get_fields(request, obj)[4:]) + (["client"] if obj else [])

    @display(  # type: ignore[untyped-decorator]
        description=_("State"), label={"posting": "success", "failing": "warning", "paused": "danger"}
    )
    def state(self, endpoint: EventEndpoint) -> tuple[str, str]:
        """Return whether events are posted to it."""
        if endpoint.paused_at:
            return "paused", REASONS.get(endpoint.pause_reason, gettext("paused"))
        if endpoint.failing_since:
            return "failing", gettext("fails: %(code)s") % {"code": endpoint.last_code}
        return "posting", gettext("posting")

    @admin.display(description=_("State"))
    def said_state(self, endpoint: EventEndpoint) -> str:
        """Return the state in words, for the endpoint's own page."""
        words: str = self.state(endpoint)[1]
        return words

    @admin.display(description=_("Waiting"))
    def waiting(self, endpoint: Any) -> int:
        """Return how many events wait."""
        counted: dict[UUID, int] | None = getattr(endpoint, WAITING, None)
        return (_count_waiting([endpoint]) if counted is None else counted).get(endpoint.pk, 0)

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> Any:
        """Return the class of the list."""
        return EndpointChangeList

    @admin.display(description=_("Log"))
    def log(self, endpoint: EventEndpoint) -> SafeString:
        """Return a link to what was posted."""
        address = reverse("admin:conversations_eventdelivery_changelist")
        said = gettext("What was posted")
        return format_html('<a href="{}?endpoint__id__exact={}">{}</a>', address, endpoint.pk, said)

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: bool) -> None:
        """Save the endpoint, or make one through its service. `response_add` shows the secret."""
        if change:
            super().save_model(request, obj, form, change)
            return
        row, secret = endpoints.create_endpoint(obj.client, obj.url, kinds=obj.kinds, private=obj.private)
        obj.pk, obj.secret = row.pk, secret

    def response_add(self, request: HttpRequest, obj: Any, post_url_continue: str | None = None) -> HttpResponse:
        """Return the only page that ever shows the secret."""
        return self._shown(request, obj, obj.secret)

    def _shown(self, request: HttpRequest, endpoint: Any, secret: str) -> HttpResponse:
        about = gettext("This secret signs the events that are posted to %(url)s. Enter it there.") % {
            "url": endpoint.url
        }
        return show_once(self, request, endpoint, title=gettext("Signing secret"), about=about, secret=secret)

    @confirmed(
        _("Pause"), question=_("Nothing is posted until you resume it. Events wait."), icon="pause", path="pause"
    )
    def pause(self, request: HttpRequest, endpoint: EventEndpoint) -> str:
        """Pause the endpoint."""
        if not endpoints.pause(endpoint.pk):
            return gettext("It is paused already.")
        self.record(request, "paused", endpoint)
        return gettext("Nothing is posted any more. Events wait.")

    @confirmed(_("Resume"), question=_("What waits is posted at once, in its order."), icon="play_arrow", path="resume")
    def resume(self, request: HttpRequest, endpoint: EventEndpoint) -> str:
        """Post to the endpoint again."""
        count = endpoints.resume(endpoint.pk)
        self.record(request, "resumed", endpoint)
        return gettext("Events are posted again. %(count)s waited.") % {"count": count}

    @confirmed(
        _("New secret"),
        question=_(
            "Events are signed with the new secret and, for 24 hours, with the present one too. Make a new one?"
        ),
        icon="key",
        path="rotate",
    )
    def rotate(self, request: HttpRequest, endpoint: EventEndpoint) -> HttpResponse:
        """Make a new secret and show it once."""
        secret = endpoints.rotate_secret(endpoint.pk, timezone.now())
        self.record(request, "made a signing secret for", endpoint)
        return self._shown(request, endpoint, secret)

    @confirmed(
        _("Remove"),
        question=_("Nothing is posted there any more, and what waits for it is dropped. You cannot undo this."),
        icon="delete",
        path="remove",
    )
    def remove(self, request: HttpRequest, endpoint: EventEndpoint) -> HttpResponse:
        """Remove the endpoint."""
        self.record(request, "deleted", endpoint)
        endpoints.remove(endpoint)
        self.message_user(request, gettext("%(url)s is removed.") % {"url": endpoint.url})
        return redirect("admin:conversations_eventendpoint_changelist")


@admin.register(EventDelivery)
class EventDeliveryAdmin(ReadOnlyAdmin):
    """The posts to endpoints, with the answers, and those that wait."""

    client_path = "client"
    empty_message = _("Nothing was posted yet.")
    list_display = ["kind", "position", "endpoint", "shown_status", "attempts", "answer", "last_attempt_at"]
    list_filter = ["status", "kind", ("endpoint", VisibleRowsFilter), ("client", VisibleRowsFilter)]
    list_select_related = ["endpoint", "client"]
    ordering = ["-id"]
    actions_detail = ["replay"]
    fields = [
        *("client", "endpoint", "kind", "position", "conversation_id", "shown_status", "attempts", "answer"),
        *("due_at", "last_attempt_at", "created_at", "body"),
    ]
    readonly_fields = ["shown_status", "answer", "body"]

    @display(  # type: ignore[untyped-decorator]
        description=_("Status"),
        label={Status.PENDING: "warning", Status.DELIVERED: "success", Status.FAILED: "danger"},
    )
    def shown_status(self, delivery: EventDelivery) -> tuple[str, str]:
        """Return the status, and the word for it."""
        return delivery.status, delivery.get_status_display().lower()

    @admin.display(description=_("Answer"))
    def answer(self, delivery: EventDelivery) -> str:
        """Return what the server answered last, or why it did not."""
        return delivery.code or (str(delivery.http_status) if delivery.http_status else "-")

    @admin.display(description=_("Body"))
    def body(self, delivery: EventDelivery) -> SafeString | str:
        """Return the body as it would be posted now: what was redacted or erased since is not in it."""
        event = Event.objects.filter(client_id=delivery.client_id, position=delivery.position).first()
        if event is None:
            return gettext("It is not kept any more.")
        if event.private:
            return gettext("A private conversation of the copilot.")
        [body] = bodies.bodies(delivery.client_id, [event])
        return format_html(
            '<pre class="overflow-x-auto whitespace-pre-wrap break-words">{}</pre>',
            json.dumps(body, indent=2, ensure_ascii=False, default=str),
        )

    def has_replay_permission(self, request: HttpRequest, object_id: Any = None) -> bool:
        """Return whether the user may replay deliveries: managers may."""
        row = object_id if isinstance(object_id, EventDelivery) else None
        return self.has_role(request, ClientScopedAdmin.change_role, row)

    @confirmed(
        _("Post again"),
        question=_("The event is posted once more, with the same id. Programs that have it already ignore it."),
        icon="replay",
        path="replay",
        permission="replay",
    )
    def replay(self, request: HttpRequest, delivery: EventDelivery) -> str:
        """Post the event again."""
        if not endpoints.replay(delivery):
            return gettext("It waits already.")
        self.record(request, "posted again", delivery)
        return gettext("The event is posted again.")
