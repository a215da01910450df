"""The domain: who talks, in which session, what is due, what staff see."""

from django.apps import AppConfig


class ConversationsConfig(AppConfig):
    """Registers the models and the system checks."""

    name = "conversations"
    verbose_name = "Convo"

    def ready(self) -> None:
        """Load the system checks; there are no signals."""
        from conversations import checks  # noqa: F401
