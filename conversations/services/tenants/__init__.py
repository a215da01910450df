"""Clients and their set-up: API keys, channel accounts, staff, sign-in limits."""
