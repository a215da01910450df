"""Rows to begin a test with."""

from __future__ import annotations

import factory
from django.utils import timezone

from conversations.models import (
    Assistant,
    ChannelAccount,
    Client,
    Contact,
    Conversation,
    ModelProvider,
    Step,
)


class ClientFactory(factory.django.DjangoModelFactory):
    class Meta:
        model = Client

    name = factory.Sequence(lambda n: f"Client {n}")
    sub_domain = factory.Sequence(lambda n: f"client-{n}")
    quiet_windows = factory.LazyFunction(dict)  # replies are due at once, where that is not the subject


class AssistantFactory(factory.django.DjangoModelFactory):
    class Meta:
        model = Assistant

    client = factory.SubFactory(ClientFactory)
    key = factory.Sequence(lambda n: f"assistant-{n}")
    name = "Ada"
    system_prompt = "You are Ada, of the shop."
    engine = "offline"
    is_default = True


class SandboxFactory(factory.django.DjangoModelFactory):
    class Meta:
        model = ChannelAccount
        django_get_or_create = ("client", "channel", "provider", "address")

    client = factory.SubFactory(ClientFactory)
    channel = "sms"
    provider = "sandbox"
    address = "sandbox"


class ModelProviderFactory(factory.django.DjangoModelFactory):
    """A provider of the installation; `client` makes it a client's."""

    class Meta:
        model = ModelProvider

    name = factory.Sequence(lambda n: f"Provider {n}")
    kind = "openai"
    credentials = factory.LazyFunction(lambda: {"api_key": "sk-list"})


class ContactFactory(factory.django.DjangoModelFactory):
    class Meta:
        model = Contact

    client = factory.SubFactory(ClientFactory)
    user_id = factory.Sequence(lambda n: f"user-{n}")


class ConversationFactory(factory.django.DjangoModelFactory):
    """An open session without chunks; `aged` makes its last message that old."""

    class Meta:
        model = Conversation

    class Params:
        aged = None

    client = factory.SubFactory(ClientFactory)
    contact = factory.SubFactory(ContactFactory, client=factory.SelfAttribute("..client"))
    channel = "sms"
    channel_account = factory.SubFactory(
        SandboxFactory, client=factory.SelfAttribute("..client"), channel=factory.SelfAttribute("..channel")
    )
    last_message_at = factory.LazyAttribute(lambda o: timezone.now() - o.aged if o.aged else timezone.now())
    started_at = factory.SelfAttribute("last_message_at")


class StepFactory(factory.django.DjangoModelFactory):
    class Meta:
        model = Step

    conversation = factory.SubFactory(ConversationFactory)
    description = "Ask for the order number"
