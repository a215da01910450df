"""The model providers: servers of language models, and what is known of their models."""

from __future__ import annotations

import re
import uuid
from typing import Any
from urllib.parse import urlsplit

from django.core.exceptions import ValidationError
from django.core.validators import MaxValueValidator, MinValueValidator
from django.db import models
from django.db.models.functions import Now
from django.utils.translation import gettext_lazy as _

from conversations.models.choices import Choices
from conversations.models.client import Client
from conversations.models.fields import EncryptedJSONField
from memory.language_models.contract import Kind


def validate_base_url(value: str) -> None:
    """Raise ValidationError unless the value is an http or https address without password and without #.

    Its host may be one that only this network knows, such as `http://ollama:11434/v1`.
    """
    try:
        parts = urlsplit(value)
        fine = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        fine = False
    if not fine or not re.fullmatch(r"[\x21-\x7e]+", value):
        raise ValidationError(_("Write an address such as https://llm.example.com/v1."))
    if parts.username is not None:
        raise ValidationError(_("Write the address without user and password. Use a header for them."))
    if parts.fragment:
        raise ValidationError(_("Write the address without its # part."))


def validate_texts(value: Any) -> None:
    """Raise ValidationError unless the value is an object whose values are texts."""
    if not isinstance(value, dict) or not all(isinstance(each, str) for each in value.values()):
        raise ValidationError(_('Write a JSON object of texts, such as {"api-version": "2026-10-01"}.'))


def validate_object(value: Any) -> None:
    """Raise ValidationError unless the value is an object."""
    if not isinstance(value, dict):
        raise ValidationError(_('Write a JSON object, such as {"service_tier": "flex"}.'))


class ModelProvider(models.Model):
    """A server of language models, and the key to it.

    A provider without a client belongs to the installation: every client's assistants may use it. One of these is made
    of the settings OPENAI_API_KEY, OPENAI_BASE_URL and OPENAI_TIMEOUT_SECONDS (`from_environment`): its row holds what
    is known of it, and neither its key nor its address. Key and headers are encrypted at rest and never shown.
    """

    class Health(Choices):
        """Broken: the provider refused the key, or the account must be paid. The next answer that succeeds mends it."""

        OK = "ok"
        BROKEN = "broken"

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    client = models.ForeignKey(
        Client, on_delete=models.CASCADE, null=True, blank=True, related_name="model_providers"
    )  # null: the installation's
    name = models.CharField(max_length=100)
    kind = models.CharField(max_length=20, choices=[(kind.value, kind.label) for kind in Kind])
    base_url = models.CharField(
        "base URL",
        max_length=500,
        blank=True,
        default="",
        db_default="",
        validators=[validate_base_url],
        help_text="Empty: the provider's own. It may have query parameters, such as ?api-version=2026-10-01.",
    )
    credentials = EncryptedJSONField(default=dict, blank=True, editable=False)  # {"api_key"}
    headers = EncryptedJSONField(default=dict, blank=True, editable=False)  # by name
    query = models.JSONField("query parameters", default=dict, blank=True, db_default={}, validators=[validate_texts])
    body = models.JSONField(
        "body parameters",
        default=dict,
        blank=True,
        db_default={},
        validators=[validate_object],
        help_text="Added to every request for an answer. They take precedence over what Convo would send.",
    )
    timeout_seconds = models.FloatField(
        null=True,
        blank=True,
        validators=[MinValueValidator(0.1), MaxValueValidator(600)],
        help_text="For a whole answer, or between two pieces of a stream. Empty: OPENAI_TIMEOUT_SECONDS.",
    )
    from_environment = models.BooleanField(default=False, db_default=False, editable=False)
    is_active = models.BooleanField(default=True, db_default=True)
    health = models.CharField(max_length=10, choices=Health, default=Health.OK, db_default=Health.OK)
    health_reason = models.CharField(max_length=300, blank=True, default="", db_default="")
    created_at = models.DateTimeField(db_default=Now(), editable=False)
    updated_at = models.DateTimeField(auto_now=True)

    class Meta:
        db_table = "model_providers"
        ordering = ["name"]
        constraints = [
            models.UniqueConstraint(name="one_model_provider_of_a_name", fields=["client", "name"]),
            models.UniqueConstraint(
                name="one_shared_model_provider_of_a_name",
                fields=["name"],
                condition=models.Q(client__isnull=True),
            ),
            models.UniqueConstraint(
                name="one_model_provider_from_the_environment",
                fields=["from_environment"],
                condition=models.Q(from_environment=True),
            ),
            models.CheckConstraint(
                name="model_provider_kind_known", condition=models.Q(kind__in=[kind.value for kind in Kind])
            ),
            models.CheckConstraint(
                name="compatible_provider_has_its_address",
                condition=~models.Q(kind=Kind.COMPATIBLE.value)
                | ~models.Q(base_url="")
                | models.Q(from_environment=True),
                violation_error_message=_("An OpenAI-compatible provider needs a base URL."),
            ),
            models.CheckConstraint(
                name="environment_provider_is_shared",
                condition=models.Q(from_environment=False) | models.Q(client__isnull=True),
            ),
        ]

    def __str__(self) -> str:
        return self.name


class ProviderModel(models.Model):
    """One model at one provider: what was learned of it from the provider's answers, and from its list of models.

    learned: {name: {"value", "at", "why"}}, as memory/language_models/capabilities.py lists the names
    """

    id = models.BigAutoField(primary_key=True)
    client = models.ForeignKey(Client, on_delete=models.CASCADE, null=True, related_name="+", db_index=False)
    provider = models.ForeignKey(ModelProvider, on_delete=models.CASCADE, related_name="models", db_index=False)
    model = models.CharField(max_length=100)
    learned = models.JSONField(default=dict, blank=True, db_default={})
    shutdown_date = models.DateField(null=True, blank=True, help_text="As the provider's list of models says.")
    first_listed_at = models.DateTimeField(null=True, blank=True)
    last_listed_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        db_table = "provider_models"
        ordering = ["model"]
        verbose_name = "model"
        constraints = [
            # Used by every reply: what is known of the model that is to write it.
            models.UniqueConstraint(name="one_model_at_a_provider", fields=["provider", "model"]),
        ]

    def __str__(self) -> str:
        return self.model
