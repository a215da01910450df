"""The use of language models by a client on each of its days."""

from __future__ import annotations

from django.db import models

from conversations.models.client import Client
from conversations.models.of_client import OfClient


class ClientDay(OfClient):
    """The running sums of a client's day, in its time zone. They hold no words, and nobody's name.

    There is no row for a day without use. services/tenants/day_quotas.py writes it.
    """

    client = models.ForeignKey(Client, on_delete=models.CASCADE, related_name="days", db_index=False)
    day = models.DateField()
    tokens = models.BigIntegerField(default=0, db_default=0)
    tokens_unpriced = models.BigIntegerField(
        default=0, db_default=0, help_text="Of tokens: of models whose price is not known. They cost 0."
    )
    cost = models.DecimalField(
        max_digits=20, decimal_places=8, default=0, db_default=0, help_text="US dollars, by the prices at the time."
    )
    warned_at = models.DateTimeField(null=True, help_text="When a quota was first nearly used up.")

    class Meta:
        db_table = "client_days"
        constraints = [
            models.UniqueConstraint(name="one_row_for_a_client_s_day", fields=["client", "day"]),
            models.CheckConstraint(
                name="client_day_counts_up",
                condition=models.Q(tokens__gte=0, tokens_unpriced__gte=0, cost__gte=0),
            ),
        ]

    def __str__(self) -> str:
        return f"{self.day}: {self.tokens} tokens"
