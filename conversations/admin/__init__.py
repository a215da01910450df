"""The admin: the pages of the staff. They read rows, and change them through services.

A page's files have its name: `admin/<page>.py`, `templates/admin/<page>/`, `static/conversations/<page>.css` and `.js`.
"""

from conversations.admin import (  # noqa: F401 - registers the pages
    api_keys,
    assistants,
    audit_log,
    channel_accounts,
    clients,
    contacts,
    conversations,
    dashboard,
    duplicates,
    erasures,
    feedback,
    inbound_events,
    model_providers,
    related_tables,
    staff,
    system,
    tools,
)
