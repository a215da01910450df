"""The modules that decide, by what they decide."""

from __future__ import annotations

from pathlib import Path

_SERVICES = {
    "appending and opening": ("core/appending", "core/opening", "core/sql", "core/pipelines", "core/batches"),
    "arriving": ("inbound/messages", "inbound/signatures", "inbound/provider_events"),
    "fence and leases": ("replies/leases", "replies/drafts"),
    "delivery": (
        *("delivery/claiming", "delivery/sending", "delivery/recovery", "delivery/outbox", "delivery/throttles"),
        *("delivery/reply_window", "delivery/opt_outs"),
    ),
    "receipts": ("delivery/receipts", "delivery/receipts_bulk"),
    "deadlines": ("core/deadlines", "jobs/sweep"),
    "hours": ("core/hours", "tenants/promises", "transitions/handovers", "desk/mails"),
    "deletions": ("retention/deletions", "retention/erasure", "retention/retention", "retention/holds"),
    "redaction": ("core/redaction",),
    "context": ("replies/prompt_context",),
    "tools": ("replies/tool_calls", "replies/tool_outcomes", "staff_actions/tool_decisions"),
    "idempotency": ("core/idempotency",),
    "round robin": ("desk/round_robin",),
    "access": ("tenants/api_keys", "tenants/second_factor", "tenants/provider_roles", "core/row_level_security"),
}
_OTHERS = {
    "arriving": ("conversations/http/bodies",),
    "redaction": ("memory/redaction",),
    "context": ("memory/context",),
    "idempotency": ("conversations/http/idempotency",),
    "access": (
        *("conversations/http/auth", "conversations/http/signed_in", "conversations/http/oidc/tokens"),
        "conversations/admin/access",
    ),
}

AREAS = {
    area: (*(f"conversations/services/{name}.py" for name in names), *(f"{name}.py" for name in _OTHERS.get(area, ())))
    for area, names in _SERVICES.items()
}
MODULES = tuple(module for modules in AREAS.values() for module in modules)
PROJECT = Path(__file__).resolve().parents[2]


def path_of(module: str) -> Path:
    """Return where the module is."""
    return PROJECT / module


def named(part: str) -> list[str]:
    """Return the modules whose path contains `part`, such as `core/appending`. Raises ValueError if there is none."""
    found = [module for module in MODULES if part in module]
    if not found:
        raise ValueError(f"No module contains '{part}'. The modules are: {', '.join(MODULES)}")
    return found
