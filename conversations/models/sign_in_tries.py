"""The counts of attempts to sign in."""

from __future__ import annotations

from django.db import models


class SignInTries(models.Model):
    """The attempts of one source until a time; `who` is a keyed hash of a user name, of an address, or of both.

    The hash does not reveal the source. After `until` the row does not count any more, and the sweep deletes it.
    """

    who = models.BinaryField(primary_key=True, max_length=16)
    count = models.PositiveIntegerField()
    until = models.DateTimeField()

    class Meta:
        db_table = "sign_in_tries"

    def __str__(self) -> str:
        return f"{self.count} until {self.until}"
