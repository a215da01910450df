"""How long after a person last wrote free text may be sent to them: 24 hours on WhatsApp and Messenger."""

from __future__ import annotations

SENT_AT = "%Y-%m-%dT%H:%M:%SZ"  # in the metadata of a chunk that came late: when the person sent it
