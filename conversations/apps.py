"""The domain: who talks, in which session, what is due, what staff see."""

from django.apps import AppConfig


class ConversationsConfig(AppConfig):
    """Registers the models and the system checks."""

    name = "conversations"
    verbose_name = "Convo"

    def ready(self) -> None:
        """Load the system checks, translate what fields are called, and connect memory to the models' providers.

        Memory asks which model serves a client, and its tokens are counted. There are no signals but Django's own, by
        which it notes sign-ins.
        """
        from conversations import checks  # noqa: F401
        from conversations.services.tenants import day_quotas, last_sign_ins, model_providers
        from conversations.words import translate_fields
        from memory.language_models import choosing

        translate_fields(self.get_models())
        last_sign_ins.register()
        choosing.register(model_providers.access_for, model_providers.learn, day_quotas.note_model_use)
