"""The pauses of sending after a provider throttled us."""

from __future__ import annotations

from django.db import models

from conversations.models.channel_account import ChannelAccount
from conversations.models.of_client import OfClient, SameClientKey


class SendPause(OfClient):
    """A pause of an account (`to_address` ''), or of its messages to one address, because the provider throttles it.

    `times` counts the pauses in a row, for providers that do not say how long to wait.
    """

    channel_account = SameClientKey(ChannelAccount, on_delete=models.CASCADE, related_name="+", db_index=False)
    to_address = models.CharField(max_length=200, blank=True, default="")
    until = models.DateTimeField()
    times = models.PositiveSmallIntegerField(default=1)

    class Meta:
        db_table = "send_pauses"
        constraints = [
            # Used by every claim of messages.
            models.UniqueConstraint(
                name="one_pause_per_account_and_address", fields=["client", "channel_account", "to_address"]
            )
        ]

    def __str__(self) -> str:
        return f"until {self.until}"
