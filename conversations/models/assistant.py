"""The assistants: personas that answer."""

from __future__ import annotations

import uuid

from django.core.validators import (
    MaxLengthValidator,
    MaxValueValidator,
    MinValueValidator,
    RegexValidator,
    URLValidator,
)
from django.db import models
from django.db.models.functions import Now
from django.utils.translation import gettext_lazy as _

from conversations.models.choices import Choices
from conversations.models.client import Client
from conversations.models.fields import EncryptedJSONField
from memory.context import DEFAULT_SYSTEM_PROMPT, MINIMUM_BUDGET

GREETING = "Hello, how can I help you?"


class Assistant(models.Model):
    """A persona of a client: its system prompt, the engine of its replies, and its fallback when that fails."""

    class EngineName(Choices):
        """The engine that writes the replies.

        `auto` is decided for each reply: the assistant's model provider if one is configured, else offline. `openai`
        always means the assistant's model provider, of whatever kind. `agent` is the client's own agent.
        """

        AUTO = "auto"
        OPENAI = "openai"
        RETELL = "retell"
        AGENT = "agent"
        OFFLINE = "offline"

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    client = models.ForeignKey(Client, on_delete=models.CASCADE, related_name="assistants")
    key = models.SlugField(max_length=63)
    name = models.CharField(max_length=200)
    is_default = models.BooleanField(default=False)
    system_prompt = models.TextField(default=DEFAULT_SYSTEM_PROMPT)
    engine = models.CharField(max_length=20, choices=EngineName, default=EngineName.AUTO)
    model_provider = models.ForeignKey(
        "conversations.ModelProvider",
        on_delete=models.RESTRICT,
        null=True,
        blank=True,
        related_name="+",
        help_text="Empty: the installation's provider.",
    )
    model = models.CharField(
        max_length=100, blank=True, default="", help_text="Empty: OPENAI_MODEL, at the installation's provider."
    )
    reasoning_effort = models.CharField(
        max_length=20,
        blank=True,
        default="",
        db_default="",
        validators=[RegexValidator(r"^[a-z]+\Z", _("Write one word, such as none, low, medium or high."))],
        help_text="How long a reasoning model thinks before it answers: none, low, medium, high. Empty: its default.",
    )
    fallback_provider = models.ForeignKey(
        "conversations.ModelProvider",
        on_delete=models.RESTRICT,
        null=True,
        blank=True,
        related_name="+",
        verbose_name="second provider",
        help_text="Asked when the first is down or refuses. Empty: the same provider.",
    )
    fallback_model = models.CharField(
        "second model",
        max_length=100,
        blank=True,
        default="",
        db_default="",
        help_text="Asked when the first is down or refuses. Empty: no second model.",
    )
    retell_agent_id = models.CharField(
        "Retell agent",
        max_length=100,
        blank=True,
        default="",
        db_default="",
        help_text="The id of a chat agent there (agent_…), where the engine is retell.",
    )
    opener = models.CharField(
        max_length=200,
        default="Hola",
        db_default="Hola",
        help_text="What a Retell agent is told to make it greet a person whom we write to first.",
    )
    # The client's own agent (docs/own-agent.md).
    agent_url = models.CharField(
        "agent's URL",
        max_length=500,
        blank=True,
        default="",
        db_default="",
        validators=[URLValidator(schemes=["http", "https"])],
        help_text="Where the engine is agent: Convo posts there what was said, and the answer is the reply.",
    )
    agent_secrets = EncryptedJSONField(default=dict, db_default="", blank=True, editable=False)  # {"current", "before"}
    agent_timeout_seconds = models.FloatField(
        "agent's time-out",
        default=30.0,
        db_default=30.0,
        validators=[MinValueValidator(0.1), MaxValueValidator(120)],
        help_text="Seconds for the whole answer; of a stream, between two pieces.",
    )
    agent_deadline_seconds = models.PositiveIntegerField(
        "agent's deadline",
        default=600,
        db_default=600,
        validators=[MinValueValidator(1), MaxValueValidator(86_400)],
        help_text="Seconds until which an agent that answers later must have called back.",
    )
    temperature = models.FloatField(null=True, blank=True, validators=[MinValueValidator(0), MaxValueValidator(2)])
    max_tokens = models.PositiveIntegerField(null=True, blank=True)
    history_length = models.PositiveSmallIntegerField(
        default=10, help_text="How many of the last chunks the model sees."
    )
    context_budget = models.PositiveIntegerField(
        default=8_000,
        db_default=8_000,
        validators=[MinValueValidator(MINIMUM_BUDGET), MaxValueValidator(1_000_000)],
        help_text="Tokens that the model is given at most for a reply, by estimate.",
    )
    fallback = models.TextField(
        default="Sorry, I cannot answer right now. A colleague will get back to you.",
        help_text="Said once when no reply can be written.",
    )
    disclosure = models.TextField(
        blank=True,
        default="",
        db_default="",
        validators=[MaxLengthValidator(500)],
        help_text="Said before the assistant's first words in each conversation: that it is a machine, such as “You are"
        " writing with an AI assistant of the shop.” In the EU the law requires it. Empty: nothing is said.",
    )
    in_copilot = models.BooleanField(
        "in the copilot",
        default=False,
        db_default=False,
        help_text="Whether the client's signed-in users may talk to it in the copilot.",
    )
    proposes = models.BooleanField(
        "proposes; a person sends",
        default=False,
        db_default=False,
        help_text="Its replies wait in the inbox until a colleague sends, edits or discards them. On the phone, where"
        " nobody can wait for that, it answers itself. Not for the copilot and not with the engine retell.",
    )
    # Tools, takeover by staff, and the end of a conversation.
    uses_tools = models.BooleanField(
        default=True,
        db_default=True,
        help_text="The model may move steps, set the topic and the current goal, ask for a person, and end a"
        " conversation that the customer has ended. Off for servers that know no tools.",
    )
    sees_files = models.BooleanField(
        "sees pictures and documents",
        default=False,
        db_default=False,
        help_text="The model is shown the newest pictures and PDFs that the person sent. Each costs about as much as a"
        " page of text. What they show cannot be redacted. For models that take them.",
    )
    takeover_sentence = models.TextField(
        blank=True,
        default="A colleague will take it from here.",
        db_default="A colleague will take it from here.",
        help_text="Said when a conversation goes to a person. Empty: nothing is said.",
    )
    human_phrases = models.TextField(
        blank=True,
        default="",
        db_default="",
        help_text="One a line. A customer who says one of them gets a person instead of the assistant.",
    )
    human_after_failures = models.PositiveSmallIntegerField(
        default=3,
        db_default=3,
        help_text="After so many replies in a row that could not be written, the conversation goes to a person."
        " 0: never.",
    )
    human_below_confidence = models.FloatField(
        null=True,
        blank=True,
        validators=[MinValueValidator(0), MaxValueValidator(1)],
        help_text="From 0 to 1: a reply of which the model is less sure is not sent, and the conversation goes to a"
        " person. Only for models that give the probabilities of their words. Empty: not asked.",
    )
    goodbye_phrases = models.TextField(
        blank=True,
        default="",
        db_default="",
        help_text="One a line. A message that says no more than one of them ends the conversation, after a last reply.",
    )
    # Phone calls.
    greeting = models.TextField(
        default=GREETING, db_default=GREETING, help_text="What a caller hears first, in the assistant's language."
    )
    spoken_language = models.CharField(
        max_length=20,
        default="en-US",
        db_default="en-US",
        validators=[
            RegexValidator(r"^[a-z]{2,3}(-[A-Za-z0-9]{2,8})*\Z", _("Write a language tag such as en-US or es-MX."))
        ],
        help_text="What callers speak and hear: a language tag such as en-US or es-MX.",
    )
    voice = models.CharField(
        max_length=60,
        blank=True,
        default="",
        db_default="",
        validators=[
            RegexValidator(r"^[A-Za-z0-9.\-]*\Z", _("Write the provider's name of a voice, such as Polly.Joanna."))
        ],
        help_text="The provider's name of a voice, such as Polly.Joanna. Empty: the provider's own for the language.",
    )
    transfer_number = models.CharField(
        max_length=16,
        blank=True,
        default="",
        db_default="",
        validators=[RegexValidator(r"^\+[1-9][0-9]{5,14}\Z", _("Write the number such as +51999999999."))],
        help_text="A person's phone: a call that needs a person is put through to it. Empty: it waits for staff.",
    )
    template_name = models.CharField(
        max_length=512,
        blank=True,
        default="",
        db_default="",
        validators=[RegexValidator(r"^[a-z0-9_]+\Z", _("A template's name has small letters, digits and _ alone."))],
        help_text="Sent on WhatsApp where free text is not taken any more: an approved template.",
    )
    template_language = models.CharField(
        max_length=10,
        default="en",
        db_default="en",
        validators=[RegexValidator(r"^[a-z]{2,3}(_[A-Za-z]{2,4})?\Z", _("A language is written such as en or pt_BR."))],
        help_text="The template's language, as WhatsApp writes it: en, en_US, pt_BR.",
    )
    template_variables = models.TextField(
        blank=True,
        default="",
        db_default="",
        validators=[MaxLengthValidator(4_000)],
        help_text="The values of the template's variables, one a line, in their order. {text} is what the assistant"
        " wrote, {name} the contact's name, {goal} the conversation's goal, {due_date} a variable of the conversation;"
        " {name|there} says “there” where there is no name.",
    )
    template_header = models.CharField(
        max_length=2_000,
        blank=True,
        default="",
        db_default="",
        help_text="The text of the header's variable, or the https link of its picture, video or document.",
    )
    created_at = models.DateTimeField(db_default=Now(), editable=False)

    class Meta:
        db_table = "assistants"
        ordering = ["key"]
        constraints = [
            models.UniqueConstraint(name="one_assistant_key_per_client", fields=["client", "key"]),
            models.UniqueConstraint(
                name="one_default_assistant_per_client", fields=["client"], condition=models.Q(is_default=True)
            ),
            models.CheckConstraint(
                name="assistant_engine_known",
                condition=models.Q(engine__in=["auto", "openai", "retell", "agent", "offline"]),
            ),
            models.CheckConstraint(
                name="assistant_names_its_second_model",
                condition=models.Q(fallback_provider__isnull=True) | ~models.Q(fallback_model=""),
                violation_error_message=_("A second provider needs a second model."),
            ),
            models.CheckConstraint(
                name="assistant_names_its_model",
                condition=models.Q(model_provider__isnull=True) | ~models.Q(model=""),
                violation_error_message=_("A model provider needs a model."),
            ),
            models.CheckConstraint(
                name="assistant_names_its_retell_agent",
                condition=~models.Q(engine="retell") | ~models.Q(retell_agent_id=""),
                violation_error_message=_("The engine retell needs the id of a Retell agent."),
            ),
            models.CheckConstraint(
                name="assistant_proposes_where_it_can",
                condition=models.Q(proposes=False) | (models.Q(in_copilot=False) & ~models.Q(engine="retell")),
                violation_error_message=_(
                    "An assistant that proposes cannot be in the copilot, where people read replies"
                    " while they are written, nor have the engine retell, which keeps the conversation itself."
                ),
            ),
            models.CheckConstraint(
                name="assistant_names_its_agent",
                condition=~models.Q(engine="agent") | ~models.Q(agent_url=""),
                violation_error_message=_("The engine agent needs the URL of the agent."),
            ),
        ]

    def __str__(self) -> str:
        return self.name
