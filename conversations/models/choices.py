"""Choices whose labels are translated where they are shown."""

from __future__ import annotations

from typing import Any

from django.db import models
from django.utils.translation import gettext_lazy

from channels_out.kinds import Channel


class Choices(models.TextChoices):
    """Values of a column, each with a label: written beside it, or made of its name."""

    @property
    def label(self) -> Any:
        """Return the label, which is translated each time that it is shown."""
        return gettext_lazy(str(self._label_))


# The channels as people know them.
CHANNELS = (
    (Channel.MESSENGER.value, "Messenger"),
    (Channel.WHATSAPP.value, "WhatsApp"),
    (Channel.SMS.value, "SMS"),
    (Channel.ORB.value, "Orb"),
    (Channel.VOICE.value, gettext_lazy("Phone")),
    (Channel.WEB.value, gettext_lazy("Web")),
)
