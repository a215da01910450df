"""The back office: what staff see. Sessions are read here; what happens to them goes through the services."""

from conversations.admin import (  # noqa: F401 - registers the pages
    accounts,
    assistants,
    clients,
    contacts,
    conversations,
    events,
    feedback,
    keys,
    people,
    system,
    trail,
)
