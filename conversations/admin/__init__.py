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
    desk_tables,
    duplicates,
    erasures,
    events,
    feedback,
    inbound_events,
    message_templates,
    model_providers,
    proposals,
    related_tables,
    staff,
    system,
    teams,
    tools,
)
