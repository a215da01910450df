"""The language and time zone in which a person sees the back office."""

from __future__ import annotations

from django.conf import settings
from django.db import models


class Preferences(models.Model):
    """A user's choices. Empty: as the browser says. A user without a row has chosen nothing."""

    user = models.OneToOneField(settings.AUTH_USER_MODEL, models.CASCADE, primary_key=True, related_name="+")
    language = models.CharField(max_length=20, blank=True, default="", db_default="")  # a code of settings.LANGUAGES
    time_zone = models.CharField(max_length=50, blank=True, default="", db_default="")  # a name of the tz database

    class Meta:
        db_table = "user_preferences"

    def __str__(self) -> str:
        return f"preferences of user {self.user_id}"
