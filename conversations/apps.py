"""The domain: who talks, in which session, what is due, what staff see."""

from django.apps import AppConfig


class ConversationsConfig(AppConfig):
    """Registers the models and the system checks."""

    name = "conversations"
    verbose_name = "Convo"

    def ready(self) -> None:
        """Load the system checks, and let memory ask which model serves a client, and count its tokens.

        There are no signals.
        """
        from conversations import checks  # noqa: F401
        from conversations.services.tenants import day_quotas, model_providers
        from memory.language_models import choosing

        choosing.register(model_providers.access_for, model_providers.learn, day_quotas.note_model_use)
