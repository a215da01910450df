"""What the AI knows: prompt context, the door to the LLM, summaries, global memory."""

from django.apps import AppConfig


class MemoryConfig(AppConfig):
    """Registers the models and the system checks."""

    name = "memory"
    verbose_name = "Memory"

    def ready(self) -> None:
        """Load the system checks; there are no signals."""
        from memory import checks  # noqa: F401
