"""Chats that an engine keeps on its own servers (Retell)."""
