"""How often somebody tried to sign in."""

from __future__ import annotations

from django.db import models


class SignInTries(models.Model):
    """Tries within one stretch of time, by whom: a keyed hash of a user name, of an address, or of both together.

    Nobody can read from it who tried. Once `until` is over the row says nothing any more, and goes with the sweep.
    """

    who = models.BinaryField(primary_key=True, max_length=16)
    count = models.PositiveIntegerField()
    until = models.DateTimeField()

    class Meta:
        db_table = "sign_in_tries"

    def __str__(self) -> str:
        return f"{self.count} until {self.until}"
