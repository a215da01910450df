"""Contacts: the people who write, their changed addresses, and pairs of contacts that may be one person."""
