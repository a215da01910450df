"""Clients and what belongs to their set-up: API keys, channel accounts, staff, sign-in limits."""
