"""Formats of dates and times: the day first, the month in small letters, and 24 hours."""

from convo_project.formats.en.formats import TIME_FORMAT  # noqa: F401

DATE_FORMAT = SHORT_DATE_FORMAT = "j b Y"
DATETIME_FORMAT = SHORT_DATETIME_FORMAT = "j b Y H:i"
