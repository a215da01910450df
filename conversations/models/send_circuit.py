"""The circuit breakers of accounts whose provider cannot be reached."""

from __future__ import annotations

from django.db import models

from conversations.models.channel_account import ChannelAccount
from conversations.models.client import Client
from conversations.models.of_client import OfClient


class SendCircuit(OfClient):
    """The sends of an account that did not reach its provider, in a row; there is no row while sends arrive.

    no row ──failure──► counting (opened_at null) ──failures──► open ──► probe ──┬─ arrives ──► no row
       ▲                       │                                 ▲               │
       └───── a send arrives ──┘                                 └─ longer pause ┴─ fails

    While it is open, messages of the account wait, but for one probe at a time: `probe` is that message, and `probe_at`
    the time of the next, or the time at which a probe that was lost with its process counts as over.
    """

    channel_account = models.OneToOneField(
        ChannelAccount, on_delete=models.CASCADE, primary_key=True, related_name="circuit"
    )
    client = models.ForeignKey(Client, on_delete=models.CASCADE, related_name="+", db_index=False)
    failures = models.PositiveSmallIntegerField(default=0)
    code = models.CharField(max_length=40, blank=True, default="")
    opened_at = models.DateTimeField(null=True)
    probes = models.PositiveSmallIntegerField(default=0, help_text="Probes that failed since it was opened.")
    probe_at = models.DateTimeField(null=True)
    probe = models.UUIDField(null=True)

    class Meta:
        db_table = "send_circuits"
        constraints = [
            models.CheckConstraint(
                name="circuit_open_with_a_next_probe",
                condition=models.Q(opened_at__isnull=True, probe_at__isnull=True, probe__isnull=True)
                | models.Q(opened_at__isnull=False, probe_at__isnull=False),
            )
        ]

    def __str__(self) -> str:
        return f"open since {self.opened_at}" if self.opened_at else f"{self.failures} failures"
